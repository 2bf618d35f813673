// Replaces each element with data-live by what its URL answers, every two seconds while the page is visible.
for (const part of document.querySelectorAll("[data-live]")) {
  setInterval(async () => {
    if (document.hidden || part.contains(document.activeElement)) return;
    try {
      const answer = await fetch(part.dataset.live, { credentials: "same-origin" });
      if (answer.ok) part.innerHTML = await answer.text();
    } catch { /* the service is away; the next round asks again */ }
  }, 2000);
}

"""Small tasks of classes: pictures and texts."""

from newcomer.data.datasets.digits import digits
from newcomer.data.examples import Examples


def digit_tasks() -> list[Examples]:
    """Three tasks of two digits each, six pictures a digit."""
    train, _ = digits()
    pairs = (("0", "1"), ("2", "3"), ("4", "5"))
    places = {
        digit: [i for i, label in enumerate(train.labels) if label == digit][:6] for pair in pairs for digit in pair
    }
    return [train.select([i for digit in pair for i in places[digit]]) for pair in pairs]


def question_tasks() -> list[Examples]:
    """Two tasks of two intents each."""
    asked = {
        "lost": ["my card is lost", "where is my card", "lost my card", "the card was stolen"],
        "rate": ["the exchange rate of the euro", "rate of a pound", "where is the rate", "exchange rate please"],
        "failed": ["top up failed", "my top up was failed", "the top up failed please", "failed in top up"],
        "refund": ["refund please", "where is my refund", "a refund of my pound", "my refund is failed"],
    }
    pairs = (("lost", "rate"), ("failed", "refund"))
    return [Examples([q for name in pair for q in asked[name]], [n for n in pair for _ in asked[n]]) for pair in pairs]


def odd_tasks(reads_images: bool) -> list[Examples]:
    """Two tasks, of 11 pictures or 7 texts each."""
    tasks = digit_tasks()[:2] if reads_images else question_tasks()
    return [task.select(range(len(task) - 1)) for task in tasks]

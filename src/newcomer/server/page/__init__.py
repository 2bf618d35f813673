"""Pages for people: what is served, items, classes. Server-rendered, with one small script."""

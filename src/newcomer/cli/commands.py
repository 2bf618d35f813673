"""Commands by name: the module that defines each, imported on demand, and its line in `newcomer --help`."""

from collections.abc import Mapping

DISTRIBUTED = ("run", "learn", "train")
"""Commands that several processes of a launcher do together."""

COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("runs", "Run both methods and their baselines on embedded data."),
    "run": ("runs", "Run a recipe with all its seeds, and write a report."),
    "compare": ("comparison", "Compare all rows of a recipe at the same search budget."),
    "report": ("runs", "Print tables of runs, and write an HTML page with plots."),
    "recipes": ("runs", "List the shipped recipes."),
    "learn": ("models", "Learn new classes, or add examples of known ones."),
    "predict": ("models", "Predict the classes of images or texts, with probabilities."),
    "train": ("training", "Train a new click model on a log."),
    "add": ("items", "Add new items by their features; they can be scored at once."),
    "score": ("items", "Predict click probabilities of requests."),
    "warm": ("items", "Adapt items to their events."),
    "calibrate": ("calibration", "Fit a click model's calibration anew."),
    "serve": ("serve", "Serve models over HTTP: register, score and warm up items, classify inputs."),
    "simulate": ("simulate", "Send the traffic of a simulated world to a service."),
    "forget": ("models", "Remove a class of a classifier, or items or users of a click model."),
    "checkout": ("models", "Copy an earlier stage of a store into a new one."),
    "export": ("models", "Export a classifier for other libraries."),
    "evaluate": ("evaluation", "Measure a model on labelled data."),
    "analyse": ("analysis", "Plot what a model has learned."),
    "inspect": (
        "inspection",
        "Show a model, one of its items, or what a click log, pictures or texts would be learned as.",
    ),
}

"""The README.md of an exported folder."""

from newcomer.classes.learner import ClassLearner


def card(learner: ClassLearner, form: str, load: str, *remarks: str) -> str:
    """What the folder holds, the Python lines that `load` it, and what else has to be known."""
    kind = "pictures" if learner.backbone.pictures else "texts"
    parts = [
        f"# A classifier of {kind}: {len(learner.classes)} classes",
        f"{form} Its classes were taught to `{learner.backbone.name}` by newcomer ({learner.name}).",
        f"```python\n{load}\n```",
        *remarks,
        "Softmax of the logits is calibrated on examples that were held out from the classifier.",
    ]
    return "\n\n".join(parts) + "\n"

"""The README.md of an exported folder."""

from pathlib import Path

from newcomer.classes.learner import ClassLearner

PICTURES = (
    "newcomer learned pictures as their owners see them: turned as their EXIF orientation says, what is transparent on white, and "
    "grey of 16 or 32 bits scaled to 8. Other readers may not: `pipeline` turns pictures, but drops transparency and cuts grey off "
    "at 255, so make such pictures plain RGB first."
)
"""What has to be done to pictures where other libraries read them."""


def card(learner: ClassLearner, form: str, load: str, *remarks: str) -> str:
    """What the folder holds, the Python lines that `load` it, and what else has to be known."""
    kind = "pictures" if learner.backbone.pictures else "texts"
    backbone = learner.backbone
    name = Path(backbone.name).name if backbone.folder else backbone.name  # nobody else has that folder
    parts = [
        f"# A classifier of {kind}: {len(learner.classes)} classes",
        f"{form} Its classes were taught to `{name}` by newcomer ({learner.name}).",
        f"```python\n{load}\n```",
        *remarks,
        *([PICTURES] if learner.backbone.pictures else []),
        "Softmax of the logits is calibrated on examples that were held out from the classifier.",
    ]
    return "\n\n".join(parts) + "\n"

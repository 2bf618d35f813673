"""The README.md of an exported folder."""

from pathlib import Path

from newcomer.classes.learner import ClassLearner
from newcomer.printable import counted

IMAGES = (
    "newcomer learned images as their owners see them: turned as their EXIF orientation says, what is transparent on white, and "
    "grey of 16 or 32 bits scaled to 8. Other readers may not: `pipeline` turns images, but drops transparency and cuts grey off "
    "at 255, so make such images plain RGB first."
)
"""What has to be done to images where other libraries read them."""

RIGHT = "Pad texts on the right, with an attention mask: then they have the same answers alone and in a batch."
"""How other libraries have to pad a decoder's texts."""


def card(learner: ClassLearner, form: str, load: str, *remarks: str) -> str:
    """Model card: contents of the folder, Python code that loads it (`load`), and notes."""
    backbone = learner.backbone
    kind = "images" if backbone.reads_images else "texts"
    name = Path(backbone.name).name if backbone.folder else backbone.name  # nobody else has that folder
    parts = [
        f"# A classifier of {kind}: {counted(len(learner.classes), 'class', 'classes')}",
        f"{form} `{name}` was trained on its classes by newcomer ({learner.name}).",
        f"```python\n{load}\n```",
        *remarks,
        *([IMAGES] if backbone.reads_images else []),
        *([RIGHT] if backbone.is_causal else []),
        "Softmax of the logits is calibrated on examples that were held out from the classifier.",
    ]
    return "\n\n".join(parts) + "\n"

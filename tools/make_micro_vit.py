"""Pre-train the micro ViT of newcomer on letters of matplotlib's fonts; it never sees digits.

    python tools/make_micro_vit.py --out src/newcomer/data/embedded/micro-vit

Digits are the new classes of the demo, so the model is pre-trained on Latin and Greek letters, distorted and blurred like
scikit-learn's digits (8×8 pixels, 17 grey levels). Two fonts are held out for validation. The same seed gives the same weights
on one machine, in about two minutes on one core. More steps give better features, which leaves less to learn: the validation
accuracy of a nearest-class-mean classifier on frozen features of digits is 87 % at 1,000 steps, 94 % at 3,000.
"""

import argparse
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel
from transformers.utils.logging import disable_progress_bar

from newcomer.seeds import spawn
from newcomer.shapes import Float, Int

SAME_SHAPE = ("Cc", "Il", "Kkκ", "Oo", "Pp", "Ss", "Uu", "Vvν", "Ww", "Xxχ", "Yy", "Zz")
"""Letters of the same shape after rescaling: one class each, or the labels would be noise."""
LETTERS = (*SAME_SHAPE, *"ABDEFGHJLMNQRT", *"abdefghijmnqrt", *"ΓΔΘΛΞΠΣΦΨΩ", *"αβγδεζηθλμξπρστφψω")
"""The classes of the pre-training. No Cyrillic: its Ze looks like a three."""
FONTS = re.compile(r"DejaVu(Sans|SansMono|Serif)(-\w+)?|STIXGeneral\w*|cm(b|mi|r|ss|ti|tt)10")
"""Font files with letters; the others have symbols, private characters or placeholders."""
HELD_OUT = ("DejaVuSerif-Italic", "cmss10")
CANVAS = 32
"""Side in pixels of a letter when it is rendered and distorted, before downscaling to the digits' 8."""


def fonts() -> list[Path]:
    """matplotlib's font files with letters, sorted by name."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return sorted(path for path in folder.glob("*.ttf") if FONTS.fullmatch(path.stem))


def characters(font: Path) -> Iterator[tuple[str, int]]:
    """The letters that a font has, each with its class.

    Computer Modern has its Greek letters at the codes of other characters, so only its Latin is used.
    """
    charmap = FT2Font(str(font)).get_charmap()
    for label, group in enumerate(LETTERS):
        for character in group:
            if ord(character) in charmap and (character.isascii() or not font.stem.startswith("cm")):
                yield character, label


def glyph(character: str, font: Path) -> Float[np.ndarray, "32 32"]:
    """One letter, white on black in [0, 1], as high as the canvas, like the digits."""
    drawing = ImageFont.truetype(str(font), 96)
    page = Image.new("L", (320, 320))
    ImageDraw.Draw(page).text((96, 96), character, fill=255, font=drawing)
    ink = page.crop(page.getbbox())
    width = min(CANVAS - 4, max(1, round(ink.width * CANVAS / ink.height)))
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(ink.resize((width, CANVAS), Image.Resampling.LANCZOS), ((CANVAS - width) // 2, 0))
    return np.asarray(canvas, dtype=np.float32) / 255


def alphabet(held_out: bool) -> tuple[Float[Tensor, "glyph 1 32 32"], Int[Tensor, " glyph"]]:
    """Every letter in every training font or held-out font, and their classes."""
    rendered = [
        (glyph(character, font), label)
        for font in fonts()
        if (font.stem in HELD_OUT) == held_out
        for character, label in characters(font)
    ]
    return torch.from_numpy(np.stack([g for g, _ in rendered]))[:, None], torch.tensor([label for _, label in rendered])


def distort(glyphs: Float[Tensor, "batch 1 32 32"], chance: torch.Generator) -> Float[Tensor, "batch 1 32 32"]:
    """Augmented letters: rotation, shear, scale, elastic distortion, stroke width."""
    n = len(glyphs)

    def between(low: float, high: float) -> Float[Tensor, " batch"]:
        return low + (high - low) * torch.rand(n, generator=chance)

    turn, slant, wide, high = between(-0.25, 0.25), between(-0.35, 0.35), between(0.95, 1.5), between(0.95, 1.1)
    rows = [
        torch.stack([wide * turn.cos(), slant - turn.sin(), between(-0.12, 0.12)], 1),
        torch.stack([turn.sin(), high * turn.cos(), between(-0.06, 0.06)], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(glyphs.shape), align_corners=False)
    waves = torch.randn(n, 2, 4, 4, generator=chance) * between(0.02, 0.12)[:, None, None, None]
    waves = functional.interpolate(waves, size=CANVAS, mode="bicubic", align_corners=False)
    warped = functional.grid_sample(glyphs, grid + waves.permute(0, 2, 3, 1), align_corners=False)
    soft = functional.avg_pool2d(functional.avg_pool2d(warped, 5, 1, 2), 3, 1, 1)
    soft = soft / soft.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
    edge = between(0.15, 0.6)[:, None, None, None]  # stroke width: lower is thicker
    return ((soft - edge) * 4 + 0.5).clamp(0, 1)


def images(glyphs: Float[Tensor, "batch 1 32 32"], chance: torch.Generator) -> Float[Tensor, "batch 3 side side"]:
    """Distorted letters that look like the digits, preprocessed for the backbone: in [-1, 1]."""
    small = functional.avg_pool2d(distort(glyphs, chance), CANVAS // 8)
    small = (small * (1 + 0.2 * torch.rand(len(glyphs), 1, 1, 1, generator=chance))).clamp(0, 1)
    small = (small * 16).round() / 16
    large = functional.interpolate(small, size=CONFIG.image_size, mode="bilinear", align_corners=False)
    return (2 * large - 1).expand(-1, 3, -1, -1)


CONFIG = ViTConfig(
    image_size=32,
    patch_size=8,
    hidden_size=80,
    num_hidden_layers=4,
    num_attention_heads=5,
    intermediate_size=320,
)
PROCESSOR = ViTImageProcessorPil(
    size={"height": 32, "width": 32}, resample=Image.Resampling.BILINEAR, image_mean=[0.5] * 3, image_std=[0.5] * 3
)


class LetterClassifier(nn.Module):
    """The backbone with a linear layer on its [CLS] token, which is discarded after pre-training."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ViTModel(CONFIG)
        self.head = nn.Linear(CONFIG.hidden_size, len(LETTERS))

    def forward(self, batch: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch letter"]:
        logits: Tensor = self.head(self.backbone(pixel_values=batch).last_hidden_state[:, 0])
        return logits


def train(seed: int, steps: int, batch: int, learning_rate: float) -> LetterClassifier:
    """Train with AdamW, each step on newly distorted letters; linear warm-up over 5 % of `steps`, then cosine decay."""
    torch.manual_seed(seed)
    model, chance = LetterClassifier(), spawn(seed, "letters", "train")
    glyphs, labels = alphabet(held_out=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05)
    for step in range(steps):
        rate = min(1, 20 * (step + 1) / steps) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = learning_rate * rate
        chosen = torch.randint(len(glyphs), (batch,), generator=chance)
        loss = functional.cross_entropy(model(images(glyphs[chosen], chance)), labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 250 == 249 or step == steps - 1:
            held_out_accuracy = accuracy(model, seed)
            print(
                f"step {step + 1:5d} of {steps}  loss {loss.item():.3f}  held-out letters {held_out_accuracy:.1%}",
                flush=True,
            )
    return model


@torch.no_grad()
def accuracy(model: LetterClassifier, seed: int) -> float:
    """Accuracy on the held-out fonts, each letter distorted four times."""
    glyphs, labels = (part.repeat_interleave(4, 0) for part in alphabet(held_out=True))
    correct = model(images(glyphs, spawn(seed, "letters", "held out"))).argmax(1) == labels
    return float(correct.float().mean())


def write(backbone: ViTModel, folder: Path) -> None:
    """Write the backbone in half precision with its image processor, atomically.

    Its pooler is untrained and written only because `AutoModel` expects its weights.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    backbone.to(torch.float16).save_pretrained(part)  # type: ignore[arg-type]  # their decorator hides the signature
    PROCESSOR.save_pretrained(part)
    for file in part.iterdir():
        file.chmod(0o644)
    if folder.exists():
        shutil.rmtree(folder)
    part.replace(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pre-train newcomer's micro ViT on letters.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    args = parser.parse_args()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    model = train(args.seed, args.steps, args.batch, args.learning_rate)
    write(model.backbone, args.out)
    print(f"{sum(p.numel() for p in model.backbone.parameters()):,} parameters in {args.out}")


if __name__ == "__main__":
    main()

"""Pre-train the micro ViT that ships with newcomer: on letters from matplotlib's fonts, never on digits.

    python tools/make_micro_vit.py --out src/newcomer/data/embedded/micro-vit

The model is to meet handwritten digits as newcomers, so it may know strokes but no digit: what it sees are letters of
the Latin and Greek alphabets, bent and blurred to the look of scikit-learn's bundled digits (8×8 pixels, 17 greys). Two
fonts are held out and tell how well it reads letters. One seed gives the same weights on one machine, in about two
minutes on one core. More steps give better features and so leave less to learn: at 3,000 a nearest class mean on the
frozen features already knows 94 % of the digits (validation), at 1,000 it knows 87 %.
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

TWINS = ("Cc", "Il", "Kkκ", "Oo", "Pp", "Ss", "Uu", "Vvν", "Ww", "Xxχ", "Yy", "Zz")
"""Letters that are one shape once their size is gone: one class each, or the labels would be noise."""
LETTERS = (*TWINS, *"ABDEFGHJLMNQRT", *"abdefghijmnqrt", *"ΓΔΘΛΞΠΣΦΨΩ", *"αβγδεζηθλμξπρστφψω")
"""The classes of the pre-training. No Cyrillic: its Ze is drawn as a three."""
FONTS = re.compile(r"DejaVu(Sans|SansMono|Serif)(-\w+)?|STIXGeneral\w*|cm(b|mi|r|ss|ti|tt)10")
"""The files with letters. The others hold symbols, private characters or placeholders."""
HELD_OUT = ("DejaVuSerif-Italic", "cmss10")
CANVAS = 32
"""Pixels a side at which a letter is drawn and bent, before it shrinks to the digits' 8."""


def fonts() -> list[Path]:
    """matplotlib's font files with letters, sorted by name."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return sorted(path for path in folder.glob("*.ttf") if FONTS.fullmatch(path.stem))


def characters(font: Path) -> Iterator[tuple[str, int]]:
    """The letters that a font can draw, each with its class.

    Computer Modern keeps its Greek under the codes of other characters, so only its Latin is used.
    """
    drawn = FT2Font(str(font)).get_charmap()
    for label, group in enumerate(LETTERS):
        for character in group:
            if ord(character) in drawn and (character.isascii() or not font.stem.startswith("cm")):
                yield character, label


def glyph(character: str, font: Path) -> Float[np.ndarray, "32 32"]:
    """One letter, white on black in [0, 1], as high as the canvas, as the digits fill their boxes."""
    drawing = ImageFont.truetype(str(font), 96)
    page = Image.new("L", (320, 320))
    ImageDraw.Draw(page).text((96, 96), character, fill=255, font=drawing)
    ink = page.crop(page.getbbox())
    width = min(CANVAS - 4, max(1, round(ink.width * CANVAS / ink.height)))
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(ink.resize((width, CANVAS), Image.Resampling.LANCZOS), ((CANVAS - width) // 2, 0))
    return np.asarray(canvas, dtype=np.float32) / 255


def alphabet(held_out: bool) -> tuple[Float[Tensor, "glyph 1 32 32"], Int[Tensor, " glyph"]]:
    """Every letter in every font of the training part, or of the held-out part, and their classes."""
    drawn = [
        (glyph(character, font), label)
        for font in fonts()
        if (font.stem in HELD_OUT) == held_out
        for character, label in characters(font)
    ]
    return torch.from_numpy(np.stack([g for g, _ in drawn]))[:, None], torch.tensor([label for _, label in drawn])


def bent(glyphs: Float[Tensor, "batch 1 32 32"], chance: torch.Generator) -> Float[Tensor, "batch 1 32 32"]:
    """Letters as a hand might draw them: turned, slanted, stretched, wavy, with a thinner or a thicker pen."""
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
    drawn = functional.grid_sample(glyphs, grid + waves.permute(0, 2, 3, 1), align_corners=False)
    soft = functional.avg_pool2d(functional.avg_pool2d(drawn, 5, 1, 2), 3, 1, 1)
    soft = soft / soft.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
    edge = between(0.15, 0.6)[:, None, None, None]  # the pen's width: less is thicker
    return ((soft - edge) * 4 + 0.5).clamp(0, 1)


def pictures(glyphs: Float[Tensor, "batch 1 32 32"], chance: torch.Generator) -> Float[Tensor, "batch 3 side side"]:
    """Bent letters in the look of the digits, as the preprocessing hands them to the backbone: in [-1, 1]."""
    small = functional.avg_pool2d(bent(glyphs, chance), CANVAS // 8)
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


class Reader(nn.Module):
    """The backbone with a linear layer on its first token, which is thrown away after the pre-training."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ViTModel(CONFIG)
        self.head = nn.Linear(CONFIG.hidden_size, len(LETTERS))

    def forward(self, batch: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch letter"]:
        logits: Tensor = self.head(self.backbone(pixel_values=batch).last_hidden_state[:, 0])
        return logits


def train(seed: int, steps: int, batch: int, learning_rate: float) -> Reader:
    """A reader after `steps` of AdamW, each on letters bent anew; the rate rises for a twentieth, then falls."""
    torch.manual_seed(seed)
    reader, chance = Reader(), spawn(seed, "letters", "train")
    glyphs, labels = alphabet(held_out=False)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=learning_rate, weight_decay=0.05)
    for step in range(steps):
        rate = min(1, 20 * (step + 1) / steps) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = learning_rate * rate
        chosen = torch.randint(len(glyphs), (batch,), generator=chance)
        loss = functional.cross_entropy(reader(pictures(glyphs[chosen], chance)), labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        if step % 250 == 249 or step == steps - 1:
            right = accuracy(reader, seed)
            print(f"step {step + 1:5d} of {steps}  loss {loss.item():.3f}  held-out letters {right:.1%}", flush=True)
    return reader


@torch.no_grad()
def accuracy(reader: Reader, seed: int) -> float:
    """Share of right answers on the fonts that were held out, each letter bent four times."""
    glyphs, labels = (part.repeat_interleave(4, 0) for part in alphabet(held_out=True))
    right = reader(pictures(glyphs, spawn(seed, "letters", "held out"))).argmax(1) == labels
    return float(right.float().mean())


def write(backbone: ViTModel, folder: Path) -> None:
    """Write the backbone in half precision with its preprocessing; the folder appears whole or not at all.

    Its pooler was never trained and is written only so that `AutoModel` finds every weight it looks for.
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
    given = parser.parse_args()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    reader = train(given.seed, given.steps, given.batch, given.learning_rate)
    write(reader.backbone, given.out)
    print(f"{sum(p.numel() for p in reader.backbone.parameters()):,} parameters in {given.out}")


if __name__ == "__main__":
    main()

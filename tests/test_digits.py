"""The embedded digits and the micro ViT, which was trained on letters only."""

import importlib.util
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL.Image import Image
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from transformers import AutoImageProcessor, AutoModel

import newcomer.data
from newcomer.data.datasets.digits import digits
from newcomer.data.examples import Examples

ROOT = Path(__file__).parents[1]
MICRO_VIT = Path(newcomer.data.__file__).parent / "embedded" / "micro-vit"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The pre-training script, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("make_micro_vit", ROOT / "tools" / "make_micro_vit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def bits(examples: Examples) -> list[bytes]:
    """One channel of each image; the three are the same."""
    return [image.getchannel(0).tobytes() for image in examples.inputs if isinstance(image, Image)]


def prepared(examples: Examples) -> Tensor:
    processor = AutoImageProcessor.from_pretrained(MICRO_VIT)  # type: ignore[no-untyped-call]
    pixels: Tensor = processor(examples.inputs, return_tensors="pt")["pixel_values"]
    return pixels


def test_train_and_test_are_disjoint_and_cover_all_digits() -> None:
    train, test = digits(seed=3)
    assert len(train) + len(test) == 1797
    source = load_digits()
    greys = np.round(source.images * (255 / 16)).astype(np.uint8)
    expected = Counter((grey.tobytes(), str(label)) for grey, label in zip(greys, source.target, strict=True))
    assert (
        Counter([*zip(bits(train), train.labels, strict=True), *zip(bits(test), test.labels, strict=True)]) == expected
    )
    assert not set(bits(train)) & set(bits(test))


def test_every_digit_has_fifty_images_in_the_test_set() -> None:
    _, asked = digits()
    assert Counter(asked.labels) == dict.fromkeys("0123456789", 50)


def test_the_split_depends_on_its_seed_alone() -> None:
    torch.rand(3)
    assert bits(digits(seed=1)[1]) == bits(digits(seed=1)[1])
    assert bits(digits(seed=1)[1]) != bits(digits(seed=2)[1])


def test_no_letter_is_a_digit(script: ModuleType) -> None:
    assert all(unicodedata.category(character).startswith("L") for group in script.LETTERS for character in group)


def test_no_letter_is_drawn_as_a_font_draws_a_digit(script: ModuleType) -> None:
    """Some fonts keep other characters under a letter's code: what counts is the drawing, not the code."""
    for font in script.fonts():
        sample = {script.glyph(digit, font).tobytes() for digit in "0123456789"}
        for character, _ in script.characters(font):
            assert script.glyph(character, font).tobytes() not in sample, (font.stem, character)


def test_the_alphabet_is_all_letters_in_all_fonts(script: ModuleType) -> None:
    assert {font.stem for font in script.fonts()} >= set(script.HELD_OUT)
    glyphs, labels = script.alphabet(held_out=False)
    assert set(labels.tolist()) == set(range(len(script.LETTERS)))
    assert glyphs.amax((1, 2, 3)).min() > 0.5  # nothing is drawn as an empty page


def test_letters_become_what_the_digits_become_before_the_backbone(script: ModuleType) -> None:
    """Enlarging here and in the processor is the same, so that pre-training and use see one kind of image."""
    train, _ = digits()
    processed = prepared(train)[:8]
    small = torch.from_numpy(np.stack([np.frombuffer(grey, np.uint8).reshape(8, 8) for grey in bits(train)[:8]])) / 255
    large = interpolate(small[:, None], size=script.CONFIG.image_size, mode="bilinear")
    assert (processed - (2 * large - 1)).abs().max() <= 2 / 255


def test_pre_training_is_its_seed_and_its_folder_holds_it(script: ModuleType, tmp_path: Path) -> None:
    first, second, other = (script.train(seed, steps=2, batch=4, learning_rate=1e-3) for seed in (0, 0, 1))
    weights = [torch.cat([p.flatten() for p in reader.parameters()]) for reader in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    script.write(first.backbone, tmp_path / "vit")
    script.write(first.backbone, tmp_path / "vit")  # a second time over the first
    read = AutoModel.from_pretrained(tmp_path / "vit").state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in first.backbone.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["vit"]


def features(examples: Examples) -> Tensor:
    model = AutoModel.from_pretrained(MICRO_VIT, dtype=torch.float32).eval()
    with torch.no_grad():
        tokens: Tensor = model(pixel_values=prepared(examples)).last_hidden_state
    return tokens[:, 0]


def test_the_micro_vit_is_micro() -> None:
    model = AutoModel.from_pretrained(MICRO_VIT, dtype=torch.float32)
    assert 250_000 < sum(p.numel() for p in model.parameters()) < 350_000
    assert sum(path.stat().st_size for path in MICRO_VIT.iterdir()) <= 1_000_000
    assert len(list(MICRO_VIT.iterdir())) == 3  # config, weights, preprocessing


@pytest.mark.learning
def test_frozen_features_know_strokes_and_leave_room_to_learn() -> None:
    train, test = digits()
    known, asked = features(train), features(test)
    labels = np.array(train.labels)
    means = torch.stack([normalize(known[labels == digit]).mean(0) for digit in train.classes])
    nearest = normalize(asked) @ normalize(means).T
    mean_right = np.mean([train.classes[i] == y for i, y in zip(nearest.argmax(1), test.labels, strict=True)])
    discriminant = LinearDiscriminantAnalysis().fit(known.numpy(), labels).score(asked.numpy(), test.labels)
    assert 0.75 < mean_right < discriminant < 0.97

"""Which of the stores is the click model, and which are classifiers."""

from pathlib import Path

from newcomer.errors import SettingError
from newcomer.items.learner import ItemLearner
from newcomer.registry import find_learner
from newcomer.server.configuration import ServeConfig
from newcomer.store.folder import Store


def click_model_folder(config: ServeConfig) -> Path | None:
    """The click model's store, if there is one. Raises SettingError for two, and for options that need one."""
    folders = [folder for folder in config.stores if _is_click_model(folder)]
    if len(folders) > 1:
        raise SettingError(f"{folders[1]}: the second click model; serve one click model a service")
    options = {
        "--states": config.states,
        "--log": config.log,
        "--impression-window": config.impression_window,
        "--calibrate-every": config.calibrate_every,
    }
    for option, given in options.items():
        if given and not folders:
            raise SettingError(f"{option}: no click model is served; leave it out")
    return folders[0] if folders else None


def classifier_folders(config: ServeConfig) -> dict[str, Path]:
    """Stores of classifiers by the names of their folders. Raises SettingError for two of one name."""
    found: dict[str, Path] = {}
    for folder in config.stores:
        if _is_click_model(folder):
            continue
        name = folder.resolve().name
        if name in found:
            raise SettingError(f"{folder}: the second classifier called '{name}'; rename its folder")
        found[name] = folder
    return found


def _is_click_model(folder: Path) -> bool:
    return issubclass(find_learner(Store(folder).manifest().learner), ItemLearner)

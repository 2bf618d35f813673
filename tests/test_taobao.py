"""Taobao's ads from their original files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newcomer.data.datasets.taobao import taobao_ads
from newcomer.errors import DataError
from newcomer.experiments.recipe import read_recipe
from newcomer.streams.cold_start import ColdStart

PROFILE = "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation"
FILES = {
    "raw_sample.csv": "user,time_stamp,adgroup_id,pid,nonclk,clk\n"
    "581738,1494137644,1,430548_1007,1,0\n"
    "449818,1494638778,10,430548_1007,0,1\n"
    "1234,1494138000,9,430539_1007,1,0\n"
    "581738,1494137650,1,,0,1\n",
    "ad_feature.csv": "adgroup_id,cate_id,campaign_id,customer,brand,price\n"
    "1,9025,108570,1,95471,170.0\n"
    "9,6261,83237,1,NULL,199.5\n"
    "10,6261,108570,2,87331,\n"
    "77,6261,1,2,87331,38.0\n",
    "user_profile.csv": f"{PROFILE},new_user_class_level \n449818,0,5,2,5,,3,0,3\n581738,0,2,1,2,1,3,1,\n999,1,1,1,1,1,1,1,1\n",
}


def written(folder: Path, **changed: str) -> str:
    for name, text in FILES.items():
        (folder / name).write_text(changed.get(name.partition(".")[0], text), encoding="utf-8")
    return str(folder)


def test_three_files_become_sixteen_fields(tmp_path: Path) -> None:
    log = taobao_ads(written(tmp_path))
    nodes = log.schema.nodes
    assert len(nodes) == 16
    assert [node.name for node in nodes if node.kind != "categorical"] == ["price"]
    assert [(log.items.ids[i], log.users.ids[u]) for i, u in zip(log.item, log.user, strict=True)] == [
        ("1", "581738"),
        ("10", "449818"),
        ("9", "1234"),
        ("1", "581738"),
    ]
    assert log.items.ids == ("1", "10", "9")  # sorted as text; what nobody was shown is not there
    assert log.users.ids == ("1234", "449818", "581738")
    assert log.label.tolist() == [0, 1, 0, 1]
    assert log.time.tolist() == [1494137644, 1494638778, 1494138000, 1494137650]
    assert log.context["pid"].texts() == ["430548_1007", "430548_1007", "430539_1007", ""]
    assert log.items.columns["cate_id"].texts() == ["9025", "6261", "6261"]


def test_what_is_not_known_is_marked(tmp_path: Path) -> None:
    log = taobao_ads(written(tmp_path))
    assert log.items.columns["brand"].texts() == ["95471", "87331", ""]  # the text NULL
    np.testing.assert_array_equal(log.items.columns["price"].values, [170.0, np.nan, 199.5])
    assert log.users.columns["pvalue_level"].texts() == ["", "", "1"]
    assert log.users.columns["new_user_class_level"].texts() == ["", "3", ""]  # its name ends in a blank
    assert {column.texts()[0] for column in log.users.columns.values()} == {""}  # 1234 has no profile


@given(st.permutations(FILES["raw_sample.csv"].splitlines()[1:]))
def test_rows_in_another_order_are_the_same_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[str]) -> None:
    header = FILES["raw_sample.csv"].splitlines()[0]
    text = "\n".join([header, *rows]) + "\n"
    log = taobao_ads(written(tmp_path_factory.mktemp("taobao"), raw_sample=text))
    names = [
        f"{log.users.ids[log.user[n]]},{log.time[n]},{log.items.ids[log.item[n]]},{log.context['pid'].texts()[n]},"
        f"{1 - int(log.label[n])},{int(log.label[n])}"
        for n in range(len(log))
    ]
    assert names == rows


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("raw_sample", "5,soon,1,p,1,0", r"raw_sample.csv: row 5, time_stamp is 'soon'; it must be a number"),
        ("raw_sample", "5,3,1,p,1,2", r"raw_sample.csv: row 5, clk is 2; it must be 0 or 1"),
        ("raw_sample", "5,3,,p,1,0", r"raw_sample.csv: row 5, adgroup_id is None; it must be a number"),
        (
            "raw_sample",
            "5,3,4711,p,1,0",
            r"raw_sample.csv: row 5 names adgroup_id 4711, which is not in ad_feature.csv",
        ),
        ("ad_feature", "11,1,1,1,1,dear", r"ad_feature.csv: row 5, price is 'dear'; it must be a number"),
        ("user_profile", "me,1,1,1,1,1,1,1,1", r"user_profile.csv: row 4, userid is 'me'; it must be a number"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, file: str, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        taobao_ads(written(tmp_path, **{file: FILES[f"{file}.csv"] + line + "\n"}))


def test_another_layout_names_the_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"raw_sample.csv: no column 'adgroup_id'; did you mean 'adgroup'"):
        taobao_ads(written(tmp_path, raw_sample=FILES["raw_sample.csv"].replace("adgroup_id", "adgroup", 1)))


def test_what_is_missing_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Ad Display/Click Data on Taobao.com.*tianchi.*dataset/56.*raw_sample.csv"):
        taobao_ads(str(tmp_path / "nothing"))
    written(tmp_path)
    (tmp_path / "ad_feature.csv").unlink()
    with pytest.raises(DataError, match=r"no ad_feature.csv here; download"):
        taobao_ads(str(tmp_path))


def test_the_recipe_has_the_papers_protocol_in_every_row_and_its_settings_in_one(tmp_path: Path) -> None:
    rows = [row for row in read_recipe("taobao", [f"data.path={tmp_path}"]).rows() if row.learner["name"] != "logistic"]
    assert [row.row for row in rows] == ["emerg", "shared-graph", "emerg-paper", "id-tuning"]
    for row in rows:
        assert (row.stream["min_old_events"], row.stream["phase_events"]) == (2000, 500)
        assert row.learner["pretrain_epochs"] == 1
    settings = {"pretrain_lr": 1e-3, "meta_epochs": 6, "meta_lr": 1e-4, "inner_lr": 1e-3, "warmup_lr": 1e-2}
    paper = {key: rows[2].learner[key] for key in settings}
    assert (paper, rows[2].learner["warmup_steps"], rows[3].learner["warmup_steps"]) == (settings, 17, 17)
    chance = np.random.default_rng(0)
    ads = np.repeat(np.arange(6), [30, 30, 30, 9, 9, 9])
    header = FILES["raw_sample.csv"].splitlines()[0]
    lines = [f"{chance.integers(9)},{n},{ad},p,{1 - n % 2},{n % 2}" for n, ad in enumerate(ads)]
    features = "\n".join(
        ["adgroup_id,cate_id,campaign_id,customer,brand,price", *(f"{n},1,1,1,1,1.0" for n in range(6))]
    )
    written(tmp_path, raw_sample="\n".join([header, *lines]), ad_feature=features)
    recipe = read_recipe("taobao", [f"data.path={tmp_path}", "stream.min_old_events=20", "stream.phase_events=2"])
    stream = recipe.build_stream()
    assert isinstance(stream, ColdStart)
    assert (stream.info()["old_items"], stream.info()["new_items"]) == (3, 3)
    learner = recipe.build_learner(stream)
    assert next(iter(learner.fit_stage(next(iter(stream))))).values["loss"] > 0

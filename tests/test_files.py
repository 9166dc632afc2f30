import json
import os
import stat
from pathlib import Path

import pytest
import yaml

from rfdetr.errors import ConfigError
from rfdetr.files import read_settings, write_atomically, write_json, write_text, write_yaml


def fail_half_way(path: Path) -> None:
    path.write_text("half")
    raise OSError(28, "No space left on device")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, fail_half_way)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_no_file_where_there_was_none(tmp_path: Path) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "metrics.json", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        seen.append(path.read_text())

    write_atomically(path, write)
    assert (seen, path.read_text()) == (["old"], "new")


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_the_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch()
    write_text(tmp_path / "file", "text")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_json_and_yaml_hold_what_was_written(tmp_path: Path) -> None:
    value = {"name": "Zürich", "values": [1, 0.5, None, True]}
    write_json(tmp_path / "a.json", value)
    write_yaml(tmp_path / "a.yaml", value)
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == value
    assert yaml.safe_load((tmp_path / "a.yaml").read_text("utf-8")) == value
    assert read_settings(tmp_path / "a.yaml") == value


def test_json_without_a_json_form_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_an_empty_settings_file_has_no_settings(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# nothing yet\n")
    assert read_settings(tmp_path / "a.yaml") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            b"epochs: 3\nlr: [1, 2\n", "not YAML in line 3: expected ',' or ']', but got '<stream end>'", id="broken"
        ),
        pytest.param(b"epochs: 3\nlr: 1\nepochs: 4\n", "not YAML in line 3: 'epochs' is there twice", id="twice"),
        pytest.param(
            b"epochs: 3\n\tlr: 1\n", "not YAML in line 2: found character '\\t' that cannot start any token", id="tab"
        ),
        pytest.param(b"- 1\n- 2\n", "expected lines `setting: value`, got a list", id="list"),
        pytest.param(b"? [a]\n: 1\n", "not YAML in line 1: a key that is no text", id="list as a name"),
        pytest.param(b"a: " + b"[" * 5000, "not YAML: brackets in brackets without end", id="endless"),
        pytest.param(b"a: 1\nb: \0", "not YAML in line 2: special characters are not allowed", id="control"),
        pytest.param(b"train", "expected lines `setting: value`, got a str", id="word"),
        pytest.param(b"name: \xff\xfe", "not a text file in UTF-8", id="not text"),
    ],
)
def test_a_broken_settings_file_is_named_with_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    assert str(caught.value) == f"{path}: {message}"


def test_names_of_settings_are_words(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("1: 2\n")
    with pytest.raises(ConfigError, match="expected lines `setting: value`"):
        read_settings(path)


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(tmp_path / "a.yaml")
    assert str(caught.value) == f"{tmp_path / 'a.yaml'}: cannot be read: No such file or directory"


def test_a_folder_is_not_a_settings_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_settings(tmp_path)

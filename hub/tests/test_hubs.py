"""Hubs by scheme, and the way from a reference to a folder."""

from pathlib import Path

import pytest

from twinkle_hub.errors import HubError, RepositoryNotFoundError, RevisionNotFoundError
from twinkle_hub.hub import Hub
from twinkle_hub.hubs import Hubs, fetch, locate
from twinkle_hub.local import FileHub
from twinkle_hub.repository import RepoRef


@pytest.fixture
def model(tmp_path, write):
    return write(tmp_path / "hub" / "models" / "m", **{"config.json": "{}"})


@pytest.fixture
def hubs(tmp_path):
    return Hubs([FileHub(), FileHub(tmp_path / "hub", scheme="tiny")])


class TestHubs:
    def test_the_standard_ones_are_known(self):
        hubs = Hubs.standard()
        assert list(hubs) == ["file", "hf", "ms"]
        assert all(isinstance(hubs.get(scheme), Hub) for scheme in hubs)

    def test_an_unknown_scheme_is_an_error_that_lists_the_known_ones(self, message):
        error = message(Hubs.standard().get, "hff")
        assert "hff://" in error
        assert "Did you mean hf://" in error
        assert "file://, hf://, ms://" in error
        assert "twinkle_register_hub" in error
        assert "twinkle plugins list" in error

    def test_a_scheme_belongs_to_one_hub(self, hubs, message):
        hubs.add(FileHub(scheme="own"), provider="twinkle-plugin-a 1.0")
        error = message(hubs.add, FileHub(scheme="own"), provider="twinkle-plugin-b 2.0")
        assert "twinkle-plugin-b 2.0" in error
        assert "twinkle-plugin-a 1.0" in error

    def test_what_is_no_hub_is_refused(self, hubs, message):
        error = message(hubs.add, object(), provider="twinkle-plugin-a 1.0")
        assert "twinkle-plugin-a 1.0" in error
        assert "resolve" in error

    def test_membership_is_by_scheme(self, hubs):
        assert "tiny" in hubs
        assert "hf" not in hubs


class TestLocate:
    def test_an_existing_path_is_itself(self, model, monkeypatch):
        monkeypatch.chdir(model.parent)
        assert locate(str(model)) == model
        assert locate("m") == Path("m")
        assert locate(str(model / "config.json")) == model / "config.json"

    def test_a_name_without_a_scheme_is_on_hugging_face(self):
        assert locate("Qwen/Qwen3-0.6B@main") == RepoRef("hf", "Qwen/Qwen3-0.6B", "main")

    @pytest.mark.parametrize("path", ["/no/such/folder", "./no/such", "../no/such", "~/no/such"])
    def test_what_looks_like_a_path_is_never_looked_up_on_a_hub(self, path, message):
        assert path in message(locate, path, kind=RepositoryNotFoundError)

    def test_an_empty_reference_is_refused(self, message):
        assert "names nothing" in message(locate, " ")

    def test_the_revision_may_come_beside_the_reference(self):
        assert locate("hf://a/b", revision="v1") == locate("hf://a/b@v1") == locate("hf://a/b@v1", revision="v1")

    def test_two_different_revisions_are_refused(self, message):
        assert "'v2'" in message(locate, "hf://a/b@v1", revision="v2")

    def test_a_path_has_no_revision(self, model, message):
        assert "Leave the revision out" in message(locate, str(model), revision="v1")


class TestMirror:
    def test_a_reference_is_replaced_by_another(self):
        assert locate("ms://a/b", mirror={"ms://a/b": "hf://c/d"}) == RepoRef("hf", "c/d")

    def test_a_reference_is_replaced_by_a_path(self, model):
        assert locate("ms://a/b", mirror={"ms://a/b": str(model)}) == model

    def test_other_references_stay(self):
        assert locate("ms://a/bc", mirror={"ms://a/b": "hf://c/d"}) == RepoRef("ms", "a/bc")

    def test_an_existing_path_stays(self, model):
        assert locate(str(model), mirror={f"file://{model}": "hf://c/d"}) == model

    def test_a_key_without_a_scheme_is_on_hugging_face(self):
        assert locate("hf://a/b", mirror={"a/b": "ms://c/d"}) == RepoRef("ms", "c/d")

    def test_mirrors_of_mirrors_are_followed(self):
        assert locate("ms://a/b", mirror={"ms://a/b": "hf://a/b", "hf://a/b": "tiny://a/b"}) == RepoRef("tiny", "a/b")

    def test_an_entry_with_the_revision_comes_first(self):
        mirror = {"ms://a/b": "hf://c/d", "ms://a/b@v1": "hf://e/f"}
        assert locate("ms://a/b@v1", mirror=mirror) == RepoRef("hf", "e/f")
        assert locate("ms://a/b", revision="v1", mirror=mirror) == RepoRef("hf", "e/f")
        assert locate("ms://a/b@v2", mirror=mirror) == RepoRef("hf", "c/d", "v2")

    def test_a_mirror_may_pin_the_revision(self):
        assert locate("hf://a/b", mirror={"hf://a/b": "hf://a/b@v1"}) == RepoRef("hf", "a/b", "v1")

    @pytest.mark.parametrize("target", ["hf://c/d@v9", "{model}"])
    def test_a_revision_that_the_mirror_cant_honour_is_refused(self, target, model, message):
        error = message(locate, "ms://a/b@v1", mirror={"ms://a/b": target.format(model=model)})
        assert "'v1'" in error
        assert "Add an entry for 'ms://a/b@v1'" in error

    @pytest.mark.parametrize(
        "mirror",
        [
            {"ms://a/b": "hf://a/b", "hf://a/b": "ms://a/b"},
            {"ms://a/b": "hf://a/b", "hf://a/b": "tiny://a/b", "tiny://a/b": "hf://a/b"},
        ],
    )
    def test_a_circle_is_refused_and_shown(self, mirror, message):
        error = message(locate, "ms://a/b", mirror=mirror)
        assert "circle" in error
        assert "ms://a/b -> hf://a/b -> " in error

    def test_an_entry_that_points_to_itself_changes_nothing(self):
        assert locate("ms://a/b", mirror={"ms://a/b": "ms://a/b"}) == RepoRef("ms", "a/b")

    def test_a_target_that_isnt_there_is_named_together_with_the_entry(self, message):
        error = message(locate, "ms://a/b", mirror={"ms://a/b": "/no/such/folder"}, kind=RepositoryNotFoundError)
        assert "'ms://a/b'" in error
        assert "/no/such/folder" in error


class TestFetch:
    def test_a_path_needs_no_hub(self, model):
        assert fetch(str(model), hubs=Hubs()) == model

    def test_the_schemes_hub_is_asked(self, hubs, model):
        assert fetch("tiny://models/m", hubs=hubs) == model
        assert fetch(f"file://{model}", hubs=hubs) == model

    def test_a_single_file_is_a_data_set_and_no_model(self, hubs, model):
        reference = f"file://{model / 'config.json'}"
        assert fetch(reference, hubs=hubs, repo_type="dataset") == model / "config.json"
        assert fetch("ms://a/b", hubs=hubs, repo_type="dataset", mirror={"ms://a/b": reference}) == model / "config.json"
        with pytest.raises(RepositoryNotFoundError, match="is a file, not a folder"):
            fetch(reference, hubs=hubs)

    def test_a_single_file_has_no_revision(self, hubs, model):
        with pytest.raises(HubError, match="is a file, not a folder"):
            fetch(f"file://{model / 'config.json'}@v1", hubs=hubs, repo_type="dataset")

    def test_the_mirror_comes_before_the_hub(self, hubs, model):
        assert fetch("ms://Qwen/Qwen3-0.6B", hubs=hubs, mirror={"ms://Qwen/Qwen3-0.6B": "tiny://models/m"}) == model

    def test_an_unknown_scheme_is_refused(self, hubs):
        with pytest.raises(HubError, match="nope://"):
            fetch("nope://a/b", hubs=hubs)

    def test_an_error_behind_a_mirror_names_what_was_asked_for(self, hubs, message):
        mirror = {"ms://Qwen/Qwen3": "tiny://models/m"}
        error = message(fetch, "ms://Qwen/Qwen3@v1", hubs=hubs, mirror=mirror, kind=RepositoryNotFoundError)
        assert "ms://Qwen/Qwen3@v1 is mirrored to tiny://models/m@v1" in error

    def test_a_revision_of_a_mirror_is_looked_up_there(self, hubs, model):
        with pytest.raises(RevisionNotFoundError, match="'v1'"):
            fetch("ms://Qwen/Qwen3@v1", hubs=hubs, mirror={"ms://Qwen/Qwen3": "tiny://models/m"})

    def test_everything_that_was_asked_reaches_the_hub(self):
        asked = {}

        class Recorder(FileHub):
            def download(self, repo_id, **options):
                asked.update(options, repo_id=repo_id)
                return Path("here")

        options = {"repo_type": "dataset", "allow_patterns": ["*.json"], "ignore_patterns": ["x"], "offline": True}
        assert fetch("own://a/b@v1", hubs=Hubs([Recorder(scheme="own")]), **options) == Path("here")
        assert asked == {"repo_id": "a/b", "revision": "v1", **options}


@pytest.mark.parametrize("scheme", ["HF", "", "a b", "a://", None, ["x"]])
def test_a_hub_whose_scheme_no_reference_can_have_is_refused(tmp_path, scheme):
    with pytest.raises(HubError, match="acme registered a hub whose scheme is"):
        Hubs().add(FileHub(tmp_path, scheme=scheme), provider="acme")

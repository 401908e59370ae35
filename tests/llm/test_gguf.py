"""GGUF files: read, converted once, found again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zotutor.llm import encode, load
from zotutor.llm import gguf as converting

gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate")

WORDS = ["<s>", "</s>", *"abcdefghij", "Ġ", "Ġa", "Ġb", "ab", "Ġab"]
MERGES = ["a b", "Ġ ab", "Ġ a", "Ġ b"]
HIDDEN, HEADS, FEED, LAYERS = 16, 2, 24, 2


def write_gguf(path: Path, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """A llama of two layers with a byte-level tokenizer; returns the tensors it holds."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(32)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3] + [1] * (len(WORDS) - 2))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    generator = torch.Generator().manual_seed(seed)
    shapes = {"token_embd.weight": (len(WORDS), HIDDEN), "output.weight": (len(WORDS), HIDDEN)}
    shapes["output_norm.weight"] = (HIDDEN,)  # type: ignore[assignment]
    for k in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"blk.{k}.{name}.weight"] = (HIDDEN, HIDDEN)
        shapes[f"blk.{k}.ffn_gate.weight"] = shapes[f"blk.{k}.ffn_up.weight"] = (FEED, HIDDEN)
        shapes[f"blk.{k}.ffn_down.weight"] = (HIDDEN, FEED)
        for name in ("attn_norm", "ffn_norm"):
            shapes[f"blk.{k}.{name}.weight"] = (HIDDEN,)  # type: ignore[assignment]
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "zotutor" / "gguf"


def test_a_gguf_file_loads_with_its_weights_and_its_tokenizer(tmp_path: Path, cache: Path) -> None:
    tensors = write_gguf(tmp_path / "small.gguf")
    model, tokenizer = load(tmp_path / "small.gguf")
    weights = dict(model.named_parameters())
    assert torch.equal(weights["model.embed_tokens.weight"], tensors["token_embd.weight"])
    assert torch.equal(
        weights["model.layers.1.mlp.down_proj.weight"], tensors["blk.1.ffn_down.weight"]
    )
    assert tokenizer.tokenize("a ab") == ["a", "Ġab"]
    logits = model(encode(tokenizer, ["a ab b"])[..., :3]).logits
    assert torch.isfinite(logits).all()


def test_conversion_happens_once_and_leaves_nothing_else(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "small.gguf")
    first, _ = load(tmp_path)  # the folder's only GGUF file
    assert [path.name[:6] for path in cache.iterdir()] == ["small-"]

    def read(file: Path) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(converting, "_read", read)
    again, _ = load(tmp_path)
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_conversion_draws_no_bar_where_nobody_watches(
    tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a notebook a bar is a widget, for which a page of the book would ask other servers."""
    write_gguf(tmp_path / "small.gguf")
    capfd.readouterr()  # what gguf says of writing
    load(tmp_path / "small.gguf")
    assert cache.is_dir(), "it was converted"
    assert capfd.readouterr() == ("", "")


def test_another_file_of_the_same_name_is_another_model(tmp_path: Path, cache: Path) -> None:
    write_gguf(tmp_path / "small.gguf", seed=0)
    first, _ = load(tmp_path)
    write_gguf(tmp_path / "small.gguf", seed=1)
    second, _ = load(tmp_path)
    heads = (dict(model.named_parameters())["lm_head.weight"] for model in (first, second))
    assert not torch.equal(*heads)


def test_half_precision_is_rounded_once(tmp_path: Path, cache: Path) -> None:
    tensors = write_gguf(tmp_path / "small.gguf")
    model, _ = load(tmp_path, dtype=torch.bfloat16)
    weight = dict(model.named_parameters())["lm_head.weight"]
    assert torch.equal(weight, tensors["output.weight"].bfloat16())


def test_a_conversion_that_breaks_off_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "small.gguf")
    from transformers import PreTrainedTokenizerBase

    def full(self: object, folder: Path, **options: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", full)
    with pytest.raises(OSError, match="no space"):
        load(tmp_path)
    assert list(cache.iterdir()) == []


def test_several_files_are_told_apart_by_the_user(tmp_path: Path) -> None:
    for name in ("one.gguf", "two.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"2 GGUF files \(one.gguf, two.gguf\); give the path"):
        load(tmp_path)


def test_what_is_no_gguf_file_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(ValueError, match=r"small.gguf: cannot be read as a GGUF"):
        load(tmp_path)
    assert not cache.exists()

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from matting.fba import FBA
from matting.u2net import U2Net
from matting.weights import (
    CheckpointError,
    load_matting_network,
    load_trimap_network,
    read_state_dict,
    standardise_weights,
)


@pytest.fixture(scope="module")
def trimap_state() -> dict[str, Tensor]:
    return U2Net("small", 3).state_dict()


@pytest.fixture(scope="module")
def matting_state() -> dict[str, Tensor]:
    return FBA("small").state_dict()


def one_line(error: pytest.ExceptionInfo[CheckpointError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["checkpoint.pth", "u2net.pth", "u2netp.pth"])
def test_loads_a_torch_checkpoint(tmp_path: Path, trimap_state: dict[str, Tensor], name: str) -> None:
    torch.save(trimap_state, tmp_path / name)
    network = load_trimap_network(tmp_path)
    assert (network.variant, network.out_channels) == ("small", 3)
    assert all(torch.equal(value, trimap_state[key]) for key, value in network.state_dict().items())


def test_loads_safetensors(tmp_path: Path, trimap_state: dict[str, Tensor]) -> None:
    save_file(trimap_state, tmp_path / "checkpoint.safetensors")
    assert load_trimap_network(tmp_path).out_channels == 3


def test_network_is_ready_to_serve(tmp_path: Path, trimap_state: dict[str, Tensor]) -> None:
    torch.save(trimap_state, tmp_path / "checkpoint.pth")
    network = load_trimap_network(tmp_path)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_one_channel_checkpoint_makes_a_saliency_network(tmp_path: Path) -> None:
    torch.save(U2Net("small", 1).state_dict(), tmp_path / "checkpoint.pth")
    assert load_trimap_network(tmp_path).out_channels == 1


def test_full_checkpoint_makes_the_full_network(tmp_path: Path) -> None:
    torch.save(U2Net("full", 1).state_dict(), tmp_path / "u2net.pth")
    assert load_trimap_network(tmp_path).variant == "full"


@pytest.mark.parametrize("prefix", ["module.", "model.", "model.module.", "module.model.module."])
@pytest.mark.parametrize("nested", [False, True])
def test_training_wrappers_are_removed(
    tmp_path: Path, trimap_state: dict[str, Tensor], matting_state: dict[str, Tensor], prefix: str, nested: bool
) -> None:
    for state, file in ((trimap_state, "checkpoint.pth"), (matting_state, "checkpoint_2.pth")):
        wrapped = {f"{prefix}{key}": value for key, value in state.items()}
        torch.save({"epoch": 3, "state_dict": wrapped} if nested else wrapped, tmp_path / file)
    assert load_trimap_network(tmp_path).state_dict().keys() == trimap_state.keys()
    assert load_matting_network(tmp_path).state_dict().keys() == matting_state.keys()


@pytest.mark.parametrize("name", ["checkpoint_2.pth", "FBA.pth"])
def test_loads_a_matting_checkpoint(tmp_path: Path, matting_state: dict[str, Tensor], name: str) -> None:
    torch.save(matting_state, tmp_path / name)
    assert torch.equal(load_matting_network(tmp_path).state_dict()["encoder.bn1.bias"], matting_state["encoder.bn1.bias"])


@pytest.mark.parametrize(("name", "warned"), [("FBA.pth", True), ("checkpoint_2.pth", False)])
def test_the_published_weights_licence_is_in_the_log(
    tmp_path: Path, matting_state: dict[str, Tensor], caplog: pytest.LogCaptureFixture, name: str, warned: bool
) -> None:
    torch.save(matting_state, tmp_path / name)
    load_matting_network(tmp_path)
    assert ["not for commercial use" in record.getMessage() for record in caplog.records] == [True] * warned


def test_a_fine_tuned_checkpoint_goes_before_the_public_one(
    tmp_path: Path, trimap_state: dict[str, Tensor], matting_state: dict[str, Tensor]
) -> None:
    for name in ("u2net.pth", "u2netp.pth", "FBA.pth"):
        (tmp_path / name).write_bytes(b"not looked at")
    torch.save(trimap_state, tmp_path / "checkpoint.pth")
    torch.save(matting_state, tmp_path / "checkpoint_2.pth")
    assert load_trimap_network(tmp_path).variant == "small"
    assert load_matting_network(tmp_path).state_dict().keys() == matting_state.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("file", ["checkpoint.pth", "checkpoint.safetensors"])
def test_half_precision_is_widened(tmp_path: Path, trimap_state: dict[str, Tensor], dtype: torch.dtype, file: str) -> None:
    halves = {key: value.to(dtype) if value.is_floating_point() else value for key, value in trimap_state.items()}
    (torch.save if file.endswith(".pth") else save_file)(halves, tmp_path / file)
    state = load_trimap_network(tmp_path).state_dict()
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}
    assert torch.equal(state["outconv.weight"], halves["outconv.weight"].float())


def test_matting_network_is_loaded_standardised(tmp_path: Path, matting_state: dict[str, Tensor]) -> None:
    torch.save(matting_state, tmp_path / "checkpoint_2.pth")
    loaded = load_matting_network(tmp_path).state_dict()
    expected = standardise_weights(matting_state)
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_standardising_is_per_output_channel() -> None:
    weight = torch.randn(5, 4, 3, 3, dtype=torch.float64) * 3 + 1
    result = standardise_weights({"encoder.conv1.weight": weight})["encoder.conv1.weight"]
    torch.testing.assert_close(result.mean(dim=(1, 2, 3)), torch.zeros(5, dtype=torch.float64))
    deviations = torch.ones(5, dtype=torch.float64)
    torch.testing.assert_close(result.flatten(1).std(dim=1, unbiased=True), deviations, atol=1e-4, rtol=0)


def test_standardising_uses_the_released_formula() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0, 6.0]).view(1, 1, 2, 2) * 1e-5
    result = standardise_weights({"encoder.conv1.weight": weight})["encoder.conv1.weight"]
    # mean 3e-5, unbiased variance (4 + 1 + 0 + 9) / 3 * 1e-10
    deviation = (14 / 3 * 1e-10 + 1e-12) ** 0.5 + 1e-5
    expected = torch.tensor([-2.0, -1.0, 0.0, 3.0]).view(1, 1, 2, 2) * 1e-5 / deviation
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


def test_standardising_leaves_the_head_the_norms_and_its_input_alone(
    matting_state: dict[str, Tensor],
) -> None:
    before = {key: value.clone() for key, value in matting_state.items()}
    result = standardise_weights(matting_state)
    assert all(torch.equal(matting_state[key], before[key]) for key in before)
    same = {key for key in result if result[key] is matting_state[key]}
    assert {key for key in result if key.startswith("decoder.conv_up4.")} <= same
    assert {key for key in result if result[key].ndim == 1} <= same


def test_full_variant_has_61_standardised_convolutions_of_64() -> None:
    with torch.device("meta"):
        state = FBA("full").state_dict()
    result = standardise_weights(state)
    assert sum(value.ndim == 4 for value in state.values()) == 64
    assert sum(result[key] is not state[key] for key in state) == 61


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a folder") as error:
        load_trimap_network(tmp_path / "nowhere")
    one_line(error)


def test_missing_file_names_what_is_expected_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"checkpoint_2\.pth or FBA\.pth, found notes\.txt") as error:
        load_matting_network(tmp_path)
    one_line(error)


@pytest.mark.parametrize("name", ["checkpoint.pth", "checkpoint.safetensors"])
def test_damaged_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no checkpoint\n" * 9)
    with pytest.raises(CheckpointError, match="expected a state dict of tensors only") as error:
        load_trimap_network(tmp_path)
    assert name in one_line(error)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": Path("x")}, tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match="tensors only") as error:
        load_trimap_network(tmp_path)
    one_line(error)


class Payload:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, trimap_state: dict[str, Tensor], legacy: bool) -> None:
    ran = tmp_path / "ran"
    content = {**trimap_state, "extra": Payload(ran)}
    torch.save(content, tmp_path / "u2net.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="expected a state dict of tensors only") as error:
        load_trimap_network(tmp_path)
    assert "u2net.pth" in one_line(error)
    assert not ran.exists()


def test_plain_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "FBA.pth").write_bytes(pickle.dumps(Payload(ran)))
    with pytest.raises(CheckpointError, match="expected a state dict of tensors only") as error:
        load_matting_network(tmp_path)
    one_line(error)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["u2netp.pth", "checkpoint.safetensors"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_truncated_file(tmp_path: Path, trimap_state: dict[str, Tensor], name: str, share: float) -> None:
    path = tmp_path / name
    (torch.save if name.endswith(".pth") else save_file)(trimap_state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match="expected a state dict of tensors only, found: ") as error:
        load_trimap_network(tmp_path)
    assert name in one_line(error)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "u2net.pth").mkdir()
    with pytest.raises(CheckpointError, match=r"u2net\.pth or u2netp\.pth, found no files") as error:
        load_trimap_network(tmp_path)
    one_line(error)


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}])
def test_an_empty_state_dict(tmp_path: Path, content: dict[str, object]) -> None:
    torch.save(content, tmp_path / "FBA.pth")
    with pytest.raises(CheckpointError, match=r"encoder\.conv1\.weight, found 0 keys such as no keys") as error:
        load_matting_network(tmp_path)
    one_line(error)


def test_a_classifiers_checkpoint(tmp_path: Path) -> None:
    state = {
        "conv1.weight": torch.zeros(64, 3, 7, 7),
        "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1),
        "fc.bias": torch.zeros(9),
    }
    torch.save(state, tmp_path / "checkpoint.pth")
    torch.save({f"encoder.{key}": value for key, value in state.items()}, tmp_path / "FBA.pth")
    with pytest.raises(CheckpointError, match=r"expected a U2-Net .*found 3 keys such as conv1.weight, fc.bias") as error:
        load_trimap_network(tmp_path)
    one_line(error)
    with pytest.raises(CheckpointError, match=r"expected a FBA state dict of 197 keys, found 3; ") as error:
        load_matting_network(tmp_path)
    one_line(error)


def test_list_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match="found a list"):
        read_state_dict(tmp_path / "checkpoint.pth")


def test_other_networks_checkpoint(tmp_path: Path, matting_state: dict[str, Tensor]) -> None:
    torch.save(matting_state, tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=r"expected a U2-Net .*found 98 keys such as decoder") as error:
        load_trimap_network(tmp_path)
    one_line(error)


def test_the_two_checkpoints_in_each_others_place(
    tmp_path: Path, trimap_state: dict[str, Tensor], matting_state: dict[str, Tensor]
) -> None:
    torch.save(trimap_state, tmp_path / "FBA.pth")
    torch.save(matting_state, tmp_path / "u2net.pth")
    with pytest.raises(CheckpointError, match=r"FBA\.pth: expected a FBA matting state dict .*found 798 keys") as error:
        load_matting_network(tmp_path)
    one_line(error)
    with pytest.raises(CheckpointError, match=r"u2net\.pth: expected a U2-Net state dict .*found 98 keys") as error:
        load_trimap_network(tmp_path)
    one_line(error)


def test_two_channels_are_refused(tmp_path: Path) -> None:
    torch.save(U2Net("small", 2).state_dict(), tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=r"1 or 3 outputs, found .* 2 outputs"):
        load_trimap_network(tmp_path)


def test_unknown_width_is_refused(tmp_path: Path, matting_state: dict[str, Tensor]) -> None:
    torch.save({**matting_state, "encoder.conv1.weight": torch.zeros(48, 11, 7, 7)}, tmp_path / "FBA.pth")
    with pytest.raises(CheckpointError, match="64 or 16 stem channels, found 48"):
        load_matting_network(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outconv.bias": None}, "found 797; 1 differ, first: outconv.bias is missing"),
        ({"extra": torch.zeros(1)}, "found 799; 1 differ, first: extra is not expected"),
        ({"side1.bias": torch.zeros(7)}, r"first: side1.bias is \[7\] instead of \[3\]"),
    ],
)
def test_misfit_is_one_line(
    tmp_path: Path, trimap_state: dict[str, Tensor], change: dict[str, Tensor | None], message: str
) -> None:
    state = {key: value for key, value in {**trimap_state, **change}.items() if value is not None}
    torch.save(state, tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=message) as error:
        load_trimap_network(tmp_path)
    one_line(error)


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path, trimap_state: dict[str, Tensor]) -> None:
    torch.save(trimap_state, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.namelist():
            packed.writestr(entry, plain.read(entry))
    with pytest.raises(CheckpointError) as error:
        read_state_dict(tmp_path / "packed.pth")
    assert "compressed entries" in one_line(error)


def test_a_checkpoint_whose_entries_lie_over_each_other_is_refused(tmp_path: Path, trimap_state: dict[str, Tensor]) -> None:
    path = tmp_path / "twice.pth"
    torch.save(trimap_state, path)
    with zipfile.ZipFile(path, "a") as file:
        file.infolist().extend(file.infolist() * 2)  # the directory names the same bytes again
        file.comment = b"written anew"
    with pytest.raises(CheckpointError) as error:
        read_state_dict(path)
    assert "larger than the file" in one_line(error)


def test_a_tensor_that_is_not_stored_in_full_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1, dtype=torch.float16).expand(1 << 40)}, tmp_path / "wide.pth")
    with pytest.raises(CheckpointError) as error:
        read_state_dict(tmp_path / "wide.pth")
    assert "repeats its elements" in one_line(error)


def test_tensors_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    stored = torch.zeros(10_000, dtype=torch.float16)
    torch.save({f"weight{i}": stored[:] for i in range(9)}, tmp_path / "same.pth")
    with pytest.raises(CheckpointError) as error:
        read_state_dict(tmp_path / "same.pth")
    assert "repeat each other's elements" in one_line(error)


def test_a_sparse_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.eye(9).to_sparse()}, tmp_path / "sparse.pth")
    with pytest.raises(CheckpointError) as error:
        read_state_dict(tmp_path / "sparse.pth")
    assert "weight is sparse" in one_line(error)

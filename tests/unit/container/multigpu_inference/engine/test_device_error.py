from __future__ import annotations

import pytest
import torch

from multigpu_inference.engine.device_error import DeviceErrorKind, device_error_kind
from multigpu_inference.errors import BadRequest

OUT_OF_MEMORY, STICKY, SCRIPT = DeviceErrorKind.OUT_OF_MEMORY, DeviceErrorKind.STICKY, DeviceErrorKind.SCRIPT
ADVICE = "\nCUDA kernel errors might be asynchronously reported; TORCH_USE_CUDA_DSA enables device-side assertions.\n"


class CUDARuntimeError(Exception):
    """CuPy's."""


class OutOfMemoryError(Exception):
    """CuPy's."""


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: device-side assert triggered",
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: an illegal instruction was encountered",
        "CUDA error: misaligned address",
        "CUDA error: unspecified launch failure",
        "CUDA error: the launch timed out and was terminated",
        "CUDA error: operation not supported on global/shared address space",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: uncorrectable NVLink error detected during the execution",
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "CUDA error: no CUDA-capable device is detected",
        "CUDA error: unknown error",
        "CUDA error: an error that did not exist when this was written",
        "CUDA driver error: unspecified launch failure",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle, opa, opb, m, n, k)`",
        "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "cuDNN error: CUDNN_STATUS_MAPPING_ERROR",
        "cuFFT error: CUFFT_INTERNAL_ERROR",
        "Triton Error [CUDA]: device-side assert triggered",
        "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
        "Xid (PCI:0000:3b:00): 48",
    ],
)
def test_a_lost_device_is_sticky(text: str) -> None:
    assert device_error_kind(RuntimeError(text + ADVICE)) is STICKY
    assert device_error_kind(torch.AcceleratorError(text + ADVICE)) is STICKY


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory" + ADVICE),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":830'),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
        OutOfMemoryError("Out of memory allocating 1,024 bytes"),
        MemoryError(),
    ],
    ids=str,
)
def test_out_of_memory_is_not(error: BaseException) -> None:
    assert device_error_kind(error) is OUT_OF_MEMORY


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)"),
        RuntimeError("CUDA error: invalid argument" + ADVICE),
        torch.AcceleratorError("CUDA error: invalid configuration argument" + ADVICE),
        torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device" + ADVICE),
        torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing" + ADVICE),
        RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input."),
        ValueError("can't allocate memory"),
        KeyError("device"),
    ],
    ids=str,
)
def test_what_only_refused_a_call_is_the_scripts(error: BaseException) -> None:
    assert device_error_kind(error) is SCRIPT


@pytest.mark.parametrize(
    "error",
    [
        ValueError("CUDA error: device-side assert triggered"),
        RuntimeError("there is no label 'CUDA error: device-side assert triggered'"),
        RuntimeError("there is no label 'Xid (PCI:0000:3b:00): 79'"),
        BadRequest("CUDA error: device-side assert triggered"),
        RuntimeError('there is no label "DefaultCPUAllocator: can\'t allocate memory"'),
    ],
    ids=str,
)
def test_a_script_that_quotes_its_client_loses_nothing_by_it(error: BaseException) -> None:
    assert device_error_kind(error) is SCRIPT


def test_the_class_says_enough_where_the_text_is_another_devices() -> None:
    assert device_error_kind(torch.AcceleratorError("HIP error: something new")) is STICKY
    assert device_error_kind(CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")) is STICKY


def raised(error: BaseException, cause: BaseException, *, explicitly: bool) -> BaseException:
    """An error as it looks after it was raised while another was handled."""
    try:
        try:
            raise cause
        except BaseException as caught:
            if explicitly:
                raise error from caught
            raise error  # noqa: B904
    except BaseException as made:
        return made


@pytest.mark.parametrize("explicitly", [True, False])
def test_a_lost_device_is_lost_whatever_the_script_made_of_it(explicitly: bool) -> None:
    lost = RuntimeError("CUDA error: device-side assert triggered")
    assert device_error_kind(raised(ValueError("no"), lost, explicitly=explicitly)) is STICKY


def test_memory_counts_beside_an_error_only_where_it_was_raised_from_it() -> None:
    assert device_error_kind(raised(ValueError("no"), MemoryError(), explicitly=True)) is OUT_OF_MEMORY
    assert device_error_kind(raised(ValueError("no"), MemoryError(), explicitly=False)) is SCRIPT


def test_a_chain_without_an_end_has_one() -> None:
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert device_error_kind(first) is SCRIPT

"""Keeps coordinates in float32 where OpenVINO computes a network that selects regions in bfloat16.

OpenVINO leaves what follows a network's last layers in float32. Two-stage detectors also have boxes before those: from
the first stage's outputs to the regions of the second, which bfloat16 would round to several pixels. Its CPU plugin
keeps an operation in float32 that bears a mark, which also files hold, but which Python cannot create: it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openvino import Core, Model

_MARK = "DisablePrecisionConversion"
_MARKED_OPERATION = f"""<net name="marked" version="11"><layers>
<layer id="0" name="marked" type="Parameter" version="opset1"><data shape="1" element_type="f32"/>
<rt_info><attribute name="{_MARK}" version="0" value="dynamic:f16"/></rt_info>
<output><port id="0" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="1" name="result" type="Result" version="opset1">
<input><port id="0" precision="FP32"><dim>1</dim></port></input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>"""

_SUPPRESSION = "NonMaxSuppression"
_LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul", "MaxPool")
_POOLED = "ROIAlign"
_REGIONS = 1  # its first input that holds coordinates; the one before it are maps


def selects_regions(model: Model) -> bool:
    """Whether boxes are suppressed within the graph."""
    return any(operation.get_type_name() == _SUPPRESSION for operation in model.get_ops())


def keeps_coordinates(model: Model) -> bool:
    """Whether :func:`keep_coordinates` has marked the graph."""
    return any(
        operation.get_type_name() == _SUPPRESSION and any(key.startswith(_MARK) for key in operation.get_rt_info())
        for operation in model.get_ops()
    )


def keep_coordinates(model: Model, core: Core) -> None:
    """Mark what is computed with coordinates: all from layers to suppression and to the regions that are pooled.

    Versions of OpenVINO that do not know the mark leave the graph as it is.
    """
    marks = marks_of(core)
    for operation in _with_coordinates(model):
        for key, value in marks.items():
            operation.set_rt_info(value, key)


def marks_of(core: Core) -> dict[str, Any]:
    """Marks as operations bear them, by their keys; none if this version of OpenVINO does not know them."""
    marked = core.read_model(_MARKED_OPERATION.encode(), b"").get_parameters()[0]
    return {key: value for key, value in marked.get_rt_info().items() if key.startswith(_MARK)}


def _with_coordinates(model: Model) -> Iterator[Any]:
    waiting = []
    for operation in model.get_ops():
        if operation.get_type_name() == _SUPPRESSION:
            waiting.append(operation)
        elif operation.get_type_name() == _POOLED:
            waiting += [value.get_node() for value in operation.input_values()[_REGIONS:]]
        elif operation.get_type_name() == "Convert" and operation.get_output_element_type(0).is_integral():
            waiting.append(operation)  # cells and levels of regions
    met = set()
    while waiting:
        operation = waiting.pop()
        name = operation.get_friendly_name()
        if name in met or operation.get_type_name() in (*_LAYERS, _POOLED, "Parameter"):
            continue
        met.add(name)
        yield operation
        waiting += [value.get_node() for value in operation.input_values()]

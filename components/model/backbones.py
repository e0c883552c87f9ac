"""The backbones a network can have, and the ImageNet weights that are published for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.model import runtime

BACKBONE = "backbone"
Scaling = tuple[float | list[float], float | list[float]]
Builder = Callable[[int, Any], tuple[Any, Any]]  # (size, the grey image) -> (the network, its scaled input)

_BUCKET = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclass(frozen=True)
class Published:
    """ImageNet weights of keras.applications, without their head."""

    url: str
    licence: str


# File names as keras.applications 3.15 builds them; licences as https://keras.io/api/applications states them.
PUBLISHED = {
    "mobilenet_0.25": Published(f"{_BUCKET}/mobilenet/mobilenet_2_5_224_tf_no_top.h5", "Apache-2.0"),
    "mobilenet_1.0": Published(f"{_BUCKET}/mobilenet/mobilenet_1_0_224_tf_no_top.h5", "Apache-2.0"),
    "mobilenet_v2": Published(
        f"{_BUCKET}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", "Apache-2.0"
    ),
    "mobilenet_v3_small": Published(
        f"{_BUCKET}/mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", "Apache-2.0"
    ),
    "mobilenet_v3_large": Published(
        f"{_BUCKET}/mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5", "Apache-2.0"
    ),
    "efficientnet_v2_b0": Published(f"{_BUCKET}/efficientnet_v2/efficientnetv2-b0_notop.h5", "Apache-2.0"),
    "densenet121": Published(
        f"{_BUCKET}/densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5", "BSD-3-Clause"
    ),
    "resnet50": Published(f"{_BUCKET}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "MIT"),
    "convnext_tiny": Published(f"{_BUCKET}/convnext/convnext_tiny_notop.h5", "Apache-2.0"),
}


def _residual(size: int, inputs: Any) -> tuple[Any, Any]:
    """A small residual network for one grey channel: 0.56 M parameters, stride 16, learns from hundreds of images.

    A fracture is a thin line somewhere. So the network starts from the image and its local contrast, and shrinks by
    maxima: a line found once survives to the last map, where it is one of few cells that pooling averages.
    """
    keras = runtime.keras()
    layers = keras.layers

    def conv(x: Any, filters: int, kernel: int, name: str) -> Any:
        x = layers.Conv2D(filters, kernel, padding="same", use_bias=False, name=f"{name}_conv")(x)
        # The short memory lets the statistics settle within the few steps a small archive gives.
        return layers.BatchNormalization(momentum=0.8, name=f"{name}_norm")(x)

    def block(x: Any, filters: int, name: str) -> Any:
        x = layers.MaxPooling2D(2, padding="same", name=f"{name}_shrink")(x)
        y = layers.ReLU(name=f"{name}_relu_1")(conv(x, filters, 3, f"{name}_1"))
        y = conv(y, filters, 3, f"{name}_2")
        return layers.ReLU(name=f"{name}_relu_2")(
            layers.Add(name=f"{name}_add")([conv(x, filters, 1, f"{name}_skip"), y])
        )

    first = keras.Input((size, size, 1), name="scaled")
    around = layers.AveragePooling2D(9, 1, padding="same", name="around")(first)
    contrast = layers.Rescaling(6.0, name="contrast")(layers.Subtract(name="detail")([first, around]))
    x = layers.Concatenate(name="both")([first, contrast])
    x = layers.ReLU(name="stem_relu")(conv(x, 16, 3, "stem"))
    for number, filters in enumerate((24, 48, 96, 160), start=1):
        x = block(x, filters, f"block_{number}")
    scaled = layers.Rescaling(1 / 127.5, -1.0, name="scale")(inputs)
    return keras.Model(first, x, name=BACKBONE), scaled


def _colour(inputs: Any, scaling: Scaling) -> Any:
    """(.., 1) 0..255 -> (.., 3) as the ImageNet weights were trained."""
    keras = runtime.keras()
    grey = keras.layers.Concatenate(name="colour")([inputs, inputs, inputs])
    return keras.layers.Rescaling(*scaling, name="scale")(grey)


def _application(name: str, scaling: Scaling, **options: Any) -> Builder:
    """A network of keras.applications without its head, and the scaling that its ImageNet weights expect."""

    def build(size: int, inputs: Any) -> tuple[Any, Any]:
        network = getattr(runtime.keras().applications, name)
        body = network(include_top=False, weights=None, input_shape=(size, size, 3), **options)
        return body, _colour(inputs, scaling)

    return build


# The three conventions of keras.applications, as (scale, offset): -1 to 1; by the channels' means and deviations; the
# means of BGR alone.
_SIGNED: Scaling = (1 / 127.5, -1.0)
_MEANS, _DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_STANDARD: Scaling = (
    [1 / (255 * deviation) for deviation in _DEVIATIONS],
    [-mean / deviation for mean, deviation in zip(_MEANS, _DEVIATIONS, strict=True)],
)
_BGR_MEANS: Scaling = (1.0, [-103.939, -116.779, -123.68])

BUILDERS: dict[str, Builder] = {
    "residual": _residual,
    "mobilenet_0.25": _application("MobileNet", _SIGNED, alpha=0.25),
    "mobilenet_1.0": _application("MobileNet", _SIGNED),
    "mobilenet_v2": _application("MobileNetV2", _SIGNED),
    "mobilenet_v3_small": _application("MobileNetV3Small", _SIGNED, include_preprocessing=False),
    "mobilenet_v3_large": _application("MobileNetV3Large", _SIGNED, include_preprocessing=False),
    "efficientnet_v2_b0": _application("EfficientNetV2B0", _SIGNED, include_preprocessing=False),
    "densenet121": _application("DenseNet121", _STANDARD),
    "resnet50": _application("ResNet50", _BGR_MEANS),
    "convnext_tiny": _application("ConvNeXtTiny", _STANDARD, include_preprocessing=False),
}

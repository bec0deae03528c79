"""The classifiers, a family a file. Each lists its rows as ``ARCHITECTURES``; here they are put together."""

from hubel.models.classification import efficientnet_lite, lenet, resnet, simple_cnn

ARCHITECTURES = (
    *lenet.ARCHITECTURES,
    *simple_cnn.ARCHITECTURES,
    *resnet.ARCHITECTURES,
    *efficientnet_lite.ARCHITECTURES,
)

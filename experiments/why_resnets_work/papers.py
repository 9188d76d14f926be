"""The papers that the analyses follow."""

from cnn_jax.report.page import Source

HE = Source(
    "He, Zhang, Ren and Sun (2015), Deep residual learning for image recognition",
    "https://arxiv.org/abs/1512.03385",
)
VEIT = Source(
    "Veit, Wilber and Belongie (2016), Residual networks behave like ensembles of "
    "relatively shallow networks",
    "https://arxiv.org/abs/1605.06431",
)
BALDUZZI = Source(
    "Balduzzi et al. (2017), The shattered gradients problem",
    "https://arxiv.org/abs/1702.08591",
)
HUANG = Source(
    "Huang et al. (2016), Deep networks with stochastic depth",
    "https://arxiv.org/abs/1603.09382",
)
LI = Source(
    "Li et al. (2018), Visualizing the loss landscape of neural nets",
    "https://arxiv.org/abs/1712.09913",
)
LIN = Source(
    "Lin, Chen and Yan (2013), Network in network", "https://arxiv.org/abs/1312.4400"
)
YANG = Source(
    "Yang et al. (2019), A mean field theory of batch normalization",
    "https://arxiv.org/abs/1902.08129",
)

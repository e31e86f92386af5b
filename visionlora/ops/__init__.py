"""Fused operations of adapted layers: one convolution or matrix product forward, factors' gradients through r channels.

A layer's weight ``W`` is seen as a matrix of its dimension 0 by everything else. With the factors ``B``
(dim0, r) and ``A`` (r, everything else), the operations here compute what ``F.linear`` and ``F.conv2d``
compute with ``W + B @ A``, and its gradients for the input, ``A`` and ``B``. Plain autograd on the dense
weight would save the dense weight and form its whole gradient; these do neither.
"""

"""The parts of VRT (Liang et al., arXiv:2201.12288), one file per box of the paper's figure.

Features are channel-last, (B, D, H, W, C), except in convolutions, warps and the alignment.
"""

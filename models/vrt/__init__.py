"""The parts of VRT (Liang et al., arXiv:2201.12288), one box of the paper's figure a file.

Features travel channel-last, (B, D, H, W, C); only convolutions, warps and the alignment see channel-first tensors.
"""

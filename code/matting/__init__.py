"""The reference application's two chained models: U²-Net draws a trimap, FBA matting makes the matte.

`images` runs in the CPU pool (bytes to pixels and back), everything else in the replica workers.
"""

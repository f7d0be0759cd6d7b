"""The reference application's two chained models: U²-Net draws a trimap, FBA matting makes the matte.

`fetch` with `download` and `s3` runs in the fetch process, as does `store`; `photo` with `decode` and `colour_profile`, and
`encode`, in the pool workers (bytes to pixels and back); `pipeline` and the networks in the replica workers.
"""

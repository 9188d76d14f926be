"""Why residual networks work: analyses of a network, trained or not.

Most files are analyses: plain functions of ``(model, variables, batches)`` that return
arrays or rows, for notebooks and for `experiments.why_resnets_work`. ``variables`` are
the argument of ``model.apply`` ('params', 'batch_stats'). Batches are mappings with
'image' (normalised, float32), 'label' and 'mask' (1 for an example, 0 for padding).
`cnn_jax.load_run` loads all three from a run directory:

    import cnn_jax
    from cnn_jax.analysis import responses

    net = cnn_jax.load_run("runs/degradation_digits/runs/plain-20-seed0")
    responses.standard_deviations(net.model, net.variables, net.batches("train"))

The analyses draw no figures. `net` and `trained` have the networks; `blocks` and
`layers` their parts; `landscape_file` and `landscape_shape` store and measure
landscapes. `exchange` and `published` read and write the weights of other programs, and
`reading` analyses string-recognition systems.
"""

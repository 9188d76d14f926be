"""Why residual networks work: analyses of a network, trained or not.

Each file is one analysis: plain functions of ``(model, variables, batches)`` that
return arrays or rows, for notebooks and for `experiments.why_resnets_work`.
``variables`` are the argument of ``model.apply`` ('params', 'batch_stats'). Batches
are mappings with 'image' (normalised, float32), 'label' and 'mask' (1 for an example,
0 for padding). `trained` loads all three from a run directory:

    from cnn_jax.analysis import responses, trained

    net = trained.load("runs/degradation_digits/runs/plain-20-seed0")
    responses.standard_deviations(net.model, net.variables, net.batches("train"))

The analyses draw no figures. `exchange` and `published` read and write the weights of
other programs, and `reading` looks at systems that read strings.
"""

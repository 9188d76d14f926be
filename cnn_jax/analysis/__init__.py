"""Why residual networks work: analyses of a network, trained or not.

Each file is one analysis: plain functions on ``(model, variables, batches)`` that
return arrays or rows, for a notebook as for `experiments.why_resnets_work`.
``variables`` are those of ``model.apply`` ('params', 'batch_stats'); batches are
mappings of 'image' (normalised, float32), 'label' and 'mask' (1 for an example, 0
for padding). `trained` makes all three from a run directory:

    from cnn_jax.analysis import responses, trained

    net = trained.load("runs/degradation_digits/runs/plain-20-seed0")
    responses.standard_deviations(net.model, net.variables, net.batches("train"))

Nothing here draws or writes files.
"""

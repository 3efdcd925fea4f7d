"""Everything that can be found wrong with a study without measuring: seconds, before hours."""

from lib import corpora, models
from lib.bench import Bench
from lib.errors import UserError
from lib.pruning import check_n
from lib.study import Study, Text


def check(study: Study) -> None:
    """Raises UserError, one line, for the first mistake found."""
    models.device(study)
    bench = Bench(study)
    model = models.skeleton(bench.config)
    models.layers(model)
    models.check_files(study)
    for n in study.pruned_layers or []:
        check_n(n, bench.n_layers)
    for part, fractions in {
        "healing": study.healing.fractions,
        "lora_rank": study.lora_rank.fractions,
    }.items():
        if not bench.healed_ns(fractions):
            raise UserError(
                f"study {study.name}: {part}.fractions {fractions} stand for no layer of "
                f"{bench.n_layers}"
            )
    widest = min(
        min(module.in_features, module.out_features)
        for module in map(model.get_submodule, models.ffn_modules(model, study.healing.targets))
    )
    for rank in {study.healing.rank, *study.lora_rank.ranks}:
        if rank > widest:
            raise UserError(f"study {study.name}: rank {rank} is above the FFN's width, {widest}")
    if study.healing.micro_batch and study.healing.batch % study.healing.micro_batch:
        raise UserError(f"study {study.name}: healing.micro_batch does not divide healing.batch")
    _check_lengths(bench)
    models.load_tokenizer(study, bench.config)
    for text in (study.validation_text, study.healing_text):
        _check_text(text)
    bench.task_manager  # noqa: B018  (raises for unknown tasks)


def _check_lengths(bench: Bench) -> None:
    study = bench.study
    longest = getattr(bench.config.get_text_config(), "max_position_embeddings", None)
    for part in ("distances", "loss", "healing"):
        length = getattr(study, part).length
        if longest is not None and length > longest:
            raise UserError(
                f"study {study.name}: {part}.length {length} is above the model's context of "
                f"{longest}"
            )


def _check_text(text: Text) -> None:
    """The source is there and its first document can be read."""
    corpora.source(text)
    next(corpora.documents(text, seed=None))

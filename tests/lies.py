"""Files that lie: absurd, self-contradicting or hostile, each made of a sound study."""

from dataclasses import dataclass

from lying import (
    DEEP,
    EXPLODES,
    HUGE,
    NAME,
    Change,
    appended,
    both_names,
    config,
    edit,
    entry,
    header,
    hostile,
    index,
    large,
    laughs,
    million,
    pickled,
    put,
    renamed,
    special,
    study,
    task,
    tokenizer,
    vocabulary,
)


@dataclass(frozen=True)
class Lie:
    """says: what the line has to name; empty: nothing is wrong with what is read of it. of: the
    commands that read it."""

    change: Change
    says: str
    of: tuple[str, ...] = ("check", "plan", "pruning")


REMOTE = {
    "AutoConfig": "configuration_evil.EvilConfig",
    "AutoModelForCausalLM": "modeling_evil.EvilModel",
}
CHECK = ("check",)
STUDY = ("check", "plan")
WEIGHTS = ("check", "pruning")  # a plan reads none

LIES: dict[str, Lie] = {
    # config.json
    "10^9 layers": Lie(config(num_hidden_layers=HUGE), "num_hidden_layers is 1,000,000,000"),
    "100,000 layers": Lie(config(num_hidden_layers=100_000), "num_hidden_layers is 100,000"),
    "more layers than tensors": Lie(config(num_hidden_layers=90), "checkpoint", WEIGHTS),
    "no layers": Lie(config(num_hidden_layers=0), "layers", WEIGHTS),
    "-3 layers": Lie(config(num_hidden_layers=-3), "layers"),
    "10^12 tokens": Lie(config(vocab_size=10**12), "checkpoint"),
    "10^9 wide": Lie(config(hidden_size=HUGE), "checkpoint"),
    "no heads": Lie(config(num_attention_heads=0), "checkpoint"),
    "10^9 heads": Lie(config(num_attention_heads=HUGE), "checkpoint"),
    "10^9 labels": Lie(config(num_labels=HUGE), "checkpoint"),
    "NaN": Lie(config(rms_norm_eps=float("nan")), "NaN"),
    "length 512.0": Lie(config(max_position_embeddings=512.0), "max_position_embeddings"),
    'tied "true"': Lie(config(tie_word_embeddings="true"), "tie_word_embeddings"),
    "no such activation": Lie(config(hidden_act="nosuch"), "nosuch"),
    "flash attention": Lie(config(attn_implementation="flash_attention_2"), "checkpoint"),
    "type is a list": Lie(config(model_type=["llama"]), "checkpoint"),
    "architectures is a number": Lie(config(architectures=5), "checkpoint", STUDY),
    "rope of no kind": Lie(config(rope_parameters={"rope_type": "nosuch"}), "checkpoint"),
    "dtype of no kind": Lie(config(dtype="float1"), "checkpoint"),
    "quantised by nobody": Lie(
        config(quantization_config={"quant_method": "nosuch"}), "nosuch", CHECK
    ),
    "nested 100,000 deep": Lie(
        put("checkpoint/config.json", '{"model_type": ' + "[" * DEEP + "]" * DEEP + "}"),
        "config.json",
    ),
    "config a list": Lie(put("checkpoint/config.json", "[1, 2]"), "config.json"),
    "config a pipe": Lie(special("checkpoint/config.json", "pipe"), "config.json"),
    "config a loop": Lie(special("checkpoint/config.json", "loop"), "config.json"),
    "config a device": Lie(special("checkpoint/config.json", "device"), "config.json"),
    "config of 4 GB": Lie(large("checkpoint/config.json", 4 * 10**9), "config.json"),
    "remote code": Lie(hostile(config(model_type="evil", auto_map=REMOTE)), "custom code"),
    "remote code of a known type": Lie(hostile(config(auto_map=REMOTE)), ""),
    "10^9 layers of text": Lie(
        config(model_type="gemma3", text_config={"num_hidden_layers": HUGE}), "num_hidden_layers"
    ),
    "10^9 experts": Lie(
        config(model_type="mixtral", architectures=None, num_local_experts=HUGE), "checkpoint"
    ),
    # Beside it.
    "generation settings a pipe": Lie(
        special("checkpoint/generation_config.json", "pipe"), "generation_config.json"
    ),
    "generation settings of wrong types": Lie(
        put("checkpoint/generation_config.json", '{"temperature": "hot"}'), ""
    ),
    "an adapter": Lie(put("checkpoint/adapter_config.json", '{"r": 1e99}'), "adapter", WEIGHTS),
    "pickled weights": Lie(pickled, "pickled", WEIGHTS),
    # Tokenizers.
    "a pattern that explodes": Lie(
        tokenizer(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": EXPLODES},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "checkpoint",
        CHECK,
    ),
    "padding of 10^12": Lie(
        tokenizer(
            padding={
                "strategy": {"Fixed": 10**12},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "<pad>",
            }
        ),
        "",
        CHECK,
    ),
    "a negative token": Lie(vocabulary(zzz=-5), "tokenizer", CHECK),
    "a token of 10^12": Lie(vocabulary(zzz=10**12), "tokenizer", CHECK),
    "tokenizer a number": Lie(put("checkpoint/tokenizer.json", "7"), "tokenizer", CHECK),
    "tokenizer of noise": Lie(
        put("checkpoint/tokenizer.json", bytes(range(256)) * 64), "tokenizer", CHECK
    ),
    "tokenizer nested": Lie(put("checkpoint/tokenizer.json", "[" * DEEP), "tokenizer", CHECK),
    "tokenizer of 4 GB": Lie(large("checkpoint/tokenizer.json", 4 * 10**9), "tokenizer.json"),
    "tokenizer a pipe": Lie(special("checkpoint/tokenizer.json", "pipe"), "tokenizer.json"),
    "tokenizer in remote code": Lie(
        hostile(
            edit(
                "checkpoint/tokenizer_config.json",
                tokenizer_class="EvilTokenizer",
                auto_map={"AutoTokenizer": ["tokenization_evil.EvilTokenizer", None]},
            )
        ),
        "custom code",
        CHECK,
    ),
    "tokenizer settings of wrong types": Lie(
        edit("checkpoint/tokenizer_config.json", added_tokens_decoder={"x": 5}), "checkpoint", CHECK
    ),
    "a chat template without end": Lie(
        put(
            "checkpoint/chat_template.jinja",
            "{% for i in range(10**12) %}{% for j in range(10**12) %}x{% endfor %}{% endfor %}",
        ),
        "",
    ),
    # Headers of tensors.
    "a header of 2^60 bytes": Lie(header(lambda entries: None, 2**60), "header", WEIGHTS),
    "tensors that overlap": Lie(entry(data_offsets=[0, 64 * 128 * 4]), "do not follow on", WEIGHTS),
    "a tensor beyond the file": Lie(
        entry(data_offsets=[2**40, 2**40 + 32768]), "model.safetensors", WEIGHTS
    ),
    "a tensor of negative length": Lie(entry(data_offsets=[32768, 0]), "header", WEIGHTS),
    "a shape of NaN": Lie(entry(shape=[float("nan"), 64]), "header", WEIGHTS),
    "a shape of 2^70": Lie(entry(shape=[2**70, 64]), "size of its shape", WEIGHTS),
    "numbers of no kind": Lie(entry(dtype="F31"), "F31", WEIGHTS),
    "a layer of 10,000 digits": Lie(
        renamed("model.layers." + "9" * 10_000),
        "checkpoint",
        WEIGHTS,
    ),
    "a header of a million tensors": Lie(million, "header", WEIGHTS),
    "weights a device": Lie(
        special("checkpoint/model.safetensors", "device"), "checkpoint", WEIGHTS
    ),
    "weights a loop": Lie(special("checkpoint/model.safetensors", "loop"), "checkpoint", WEIGHTS),
    # Indexes.
    "a shard outside": Lie(
        index(weight_map={NAME: "../../etc/passwd"}), "index.json is damaged", WEIGHTS
    ),
    "a shard above": Lie(index(weight_map={NAME: ".."}), "checkpoint", WEIGHTS),
    "shards that are no names": Lie(index(weight_map={NAME: 5}), "index.json is damaged", WEIGHTS),
    "a list of shards": Lie(index(weight_map=[NAME]), "index.json is damaged", WEIGHTS),
    "a shard that is missing": Lie(
        index(weight_map={NAME: "model-00002-of-00002.safetensors"}), "is missing", WEIGHTS
    ),
    "an index of other tensors": Lie(
        index(weight_map={"x": "model-00001-of-00002.safetensors"}), "index.json tensor", WEIGHTS
    ),
    "a tensor in two shards": Lie(both_names, "is in both", WEIGHTS),
    "an index nested": Lie(
        lambda folder: (
            index()(folder),
            put("checkpoint/model.safetensors.index.json", "[" * DEEP)(folder),
        ),
        "index.json is damaged",
        WEIGHTS,
    ),
    # Tasks.
    "a task that laughs": Lie(
        appended("tasks/quiz.yaml", laughs() + "metadata: *i\n"), "task", STUDY
    ),
    "a task nested": Lie(put("tasks/quiz.yaml", "task: " + "[" * DEEP), "task", STUDY),
    "a task a list": Lie(put("tasks/quiz.yaml", "- task: quiz\n"), "task", CHECK),
    "a task that includes itself": Lie(task(include="quiz.yaml"), "task", CHECK),
    "a task a pipe": Lie(special("tasks/quiz.yaml", "pipe"), "task", STUDY),
    "a task of Python objects": Lie(
        appended("tasks/quiz.yaml", 'doc_to_text: !!python/object/apply:os.system ["touch ran"]\n'),
        "task",
        CHECK,
    ),
    "a task of numbers": Lie(
        task(output_type=5, doc_to_text=7, test_split=[1], metric_list={"a": 1}), "task", STUDY
    ),
    # Texts.
    "10^12 windows": Lie(
        study(distances={"n_sequences": 10**12, "length": 16}), "n_sequences", CHECK
    ),
    "a text a device": Lie(special("validation.jsonl", "device"), "text", CHECK),
    "a text a pipe": Lie(special("validation.jsonl", "pipe"), "validation.jsonl", CHECK),
    # Study files.
    "10^9 shots": Lie(
        study(tasks=[{"name": "quiz", "shots": HUGE, "role": "knowledge"}]), "shots", STUDY
    ),
    "a study that laughs": Lie(appended("mine.yaml", laughs()), "mine", STUDY),
    "a study nested": Lie(appended("mine.yaml", "shape: " + "[" * DEEP), "mine", STUDY),
    "a study of Python objects": Lie(
        appended("mine.yaml", 'title: !!python/object/apply:os.system ["touch ran"]\n'),
        "mine",
        STUDY,
    ),
    "a study of 4 GB": Lie(large("mine.yaml", 4 * 10**9), "mine", STUDY),
    "a study a loop": Lie(special("mine.yaml", "loop"), "mine", STUDY),
    "a number of 10,000 digits": Lie(
        appended("mine.yaml", f"dtype: {'9' * 10_000}\n"), "mine", STUDY
    ),
    "10^9 orders of examples": Lie(
        study(prompts={"shots": 30, "orders": HUGE}), "prompts.orders", STUDY
    ),
    "a model a loop": Lie(special("checkpoint", "loop"), "model", STUDY),
    "a text nested": Lie(
        put("validation.jsonl", '{"text": ' + "[" * DEEP + "]" * DEEP + "}\n"),
        "validation.jsonl",
        CHECK,
    ),
}

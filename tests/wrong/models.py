"""Wrong model folders. Those that are looked into need torch."""

# ruff: noqa: E501 - a message is one line, as a user sees it.

from __future__ import annotations

from tests.wrong.places import Wrong, cut, edited, file, folder, gone, loop, model, sealed

ROWS = [
    Wrong(
        line="eval tiny-easy --run unfinished",
        error="run 'unfinished' is not finished",
        hint="opo train --resume --out unfinished",
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="the tokenizer of model 'm' reads no text",
        hint="give a complete model folder (config.json, tokenizer.json, model.safetensors)",
        makes=(
            model("m"),
            gone("m/tokenizer.json"),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' does not load: its weights have other shapes than its config.json says",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            edited("m/config.json", lambda c: c.update(hidden_size=32)),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --model '[bold]x[/bold]'",
        error="model folder '[bold]x[/bold]' does not exist",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="train --model 'no\nwhere'",
        error="model folder 'no\\nwhere' does not exist",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="eval tiny-easy --model occupied",
        error="model folder 'occupied' has no config.json",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="eval tiny-easy --model occupied/file",
        error="model folder 'occupied/file' does not exist",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="lab --model a/b/c",
        error="model folder 'a/b/c' does not exist",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
    ),
    Wrong(
        line="train --model m",
        error="model folder 'm' has no config.json",
        hint="give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
        makes=(
            folder("m"),
            loop("m/config.json"),
        ),
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' does not load: It looks like the config file at 'm/config.json' is not a valid JSON file.",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            file("m/config.json", "{"),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' does not load: Unrecognized model in m. Should have a `model_type` key in its config.json.",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            file("m/config.json", "[]"),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' lacks weights: bert.embeddings.LayerNorm.bias and 59 more",
        hint="they would start at random; give a complete model folder",
        makes=(
            model("m"),
            edited(
                "m/config.json", lambda c: c.update(model_type="bert", architectures=["BertModel"])
            ),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' does not load: The checkpoint you are trying to load has model type `nonesuch` but Transformers does not recognize this architecture. This could be because of an issue with the checkpoint, or because your version of Transformers is out of date.",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            edited("m/config.json", lambda c: c.update(model_type="nonesuch")),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' brings code of its own (auto_map in its config.json)",
        hint="no code of a model is run here; choose an architecture that transformers knows",
        makes=(
            model("m"),
            edited(
                "m/config.json",
                lambda c: c.update(
                    model_type="nonesuch",
                    auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
                ),
            ),
            file("m/evil.py", 'open("pwned", "w").close()'),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' does not load: Validation error for field 'hidden_size':     TypeError: Field 'hidden_size' expected int, got str (value: 'wide')",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            edited("m/config.json", lambda c: c.update(hidden_size="wide")),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' lacks weights: model.layers.3.input_layernorm.weight and 11 more",
        hint="they would start at random; give a complete model folder",
        makes=(
            model("m"),
            edited(
                "m/config.json",
                lambda c: c.update(num_hidden_layers=c["num_hidden_layers"] + 1, layer_types=None),
            ),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' does not load: Error no file named model.safetensors, or pytorch_model.bin, found in directory m.",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            gone("m/model.safetensors"),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' does not load: Error while deserializing header: invalid header length",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            cut("m/model.safetensors", 1000),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' does not load: Error while deserializing header: header too small",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            file("m/model.safetensors", ""),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' does not load: pop from empty list",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            gone("m/model.safetensors"),
            file("m/pytorch_model.bin", b"\x80\x04."),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' does not load: 'str' object cannot be interpreted as an integer",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            file("m/tokenizer.json", "[]"),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="model 'm' does not load: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            file("m/tokenizer.json", "{"),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="eval tiny-easy --model m --template chat --samples 1 --limit 1 --k 1",
        error="data.template = 'chat': this model's tokenizer has no chat template",
        hint="--set data.template=boxed, or another of: opo list templates",
        makes=(model("m"),),
        needs_torch=True,
    ),
    Wrong(
        line="eval tiny-easy --model m",
        error="model 'm' does not load: Error while deserializing header: invalid header length",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            cut("m/model.safetensors", 1000),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="lab --preset smoke --model m",
        error="model 'm' does not load: Error while deserializing header: invalid header length",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            cut("m/model.safetensors", 1000),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m --set rollout.max_new_tokens=9999",
        error="rollout.max_new_tokens = 9999: the model takes 512 tokens, prompt included",
        hint="--set rollout.max_new_tokens=256",
        makes=(model("m"),),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m --set data.max_prompt_tokens=1",
        error="data.max_prompt_tokens = 1: the shortest of 256 training prompts has 6 tokens",
        hint="--set data.max_prompt_tokens=6 or more",
        makes=(model("m"),),
        needs_torch=True,
    ),
    Wrong(
        line="eval tiny-easy --run run",
        error="model 'run/model' does not load: Unrecognized model in run/model. Should have a `model_type` key in its config.json.",
        hint="check that the folder is complete; for a hub id, that the hub can be reached",
        makes=(
            model("m"),
            cut("m/model.safetensors", 1000),
            file("run/model/tokenizer.json", "{}"),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="'m/model.safetensors' is damaged: 1000 bytes, not 653608",
        hint="restore it, or make the folder again",
        makes=(
            sealed("m"),
            cut("m/model.safetensors", 1000),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="train --preset smoke --model m",
        error="'m/tokenizer.json' is missing",
        hint="restore it, or make the folder again",
        makes=(
            sealed("m"),
            gone("m/tokenizer.json"),
        ),
        needs_torch=True,
    ),
    Wrong(
        line="eval tiny-easy --model m",
        error="'m/config.json' is damaged: 710 bytes, not 799",
        hint="restore it, or make the folder again",
        makes=(
            sealed("m"),
            edited("m/config.json", lambda c: c.update(hidden_size=32)),
        ),
        needs_torch=True,
    ),
]

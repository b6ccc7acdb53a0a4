"""What the fields of a Hugging Face configuration mean for a merge: nothing, only for training, or another function."""

import re
from typing import Any, Literal

Meaning = Literal["origin", "training", "function"]
ORIGIN = re.compile(
    r"^(_name_or_path|name_or_path|_commit_hash|transformers_version|transformers\.js_config|torch_dtype|dtype|auto_map|"
    r"finetuning_task|use_cache|cache_implementation|_attn_implementation.*|attn_implementation|torchscript|"
    r"gradient_checkpointing|use_return_dict|return_dict|output_(attentions|hidden_states|router_logits)|"
    r"special_tokens_map_file|tokenizer_file|tokenizer_class|processor_class|image_processor_type|feature_extractor_type|"
    r"__version__|version|_diffusers_version|_valid_processor_keys|use_bfloat16|tf_legacy_loss|unsloth.*|backend)$"
)
"""Fields that say where a model comes from and how it is held in memory: not compared."""
TRAINING = re.compile(
    r"^(.*(dropout|drop_rate|drop_path|_pdrop|pdrop|drop)(_rate|_prob|_path_rate|_p)?|classifier_dropout|initializer_range|"
    r"initializer_factor|init_std|init_xavier_std|layer_scale_init_value|problem_type|router_aux_loss_coef|aux_loss_.*|"
    r"task_specific_params|mask_time_.*|mask_feature_.*|apply_spec_augment|label_smoothing|"
    r"max_length|min_length|num_beams|num_beam_groups|do_sample|temperature|top_k|top_p|typical_p|repetition_penalty|"
    r"length_penalty|no_repeat_ngram_size|encoder_no_repeat_ngram_size|early_stopping|diversity_penalty|bad_words_ids|"
    r"num_return_sequences|remove_invalid_values|exponential_decay_length_penalty|suppress_tokens|begin_suppress_tokens|"
    r"forced_(bos|eos)_token_id|prefix|pretraining_tp|chunk_size_feed_forward|pad_token_id|model_max_length|"
    r"padding_side|truncation_side|clean_up_tokenization_spaces|padding|truncation|max_seq_length|similarity_fn_name|"
    r"default_prompt_name)$"
)
"""Fields that change training, generation's defaults or padding, and not what the network computes."""
KNOWN_DEFAULTS: dict[str, Any] = {
    "tie_word_embeddings": True, "is_decoder": False, "is_encoder_decoder": False, "add_cross_attention": False,
    "position_embedding_type": "absolute", "pruned_heads": {}, "tie_encoder_decoder": False, "attention_bias": False,
    "rope_scaling": None, "use_sliding_window": False, "mlp_bias": False, "cross_attention_hidden_size": None,
}  # fmt: skip
"""What a field that is not written stands for, where that is the same for all kinds of models."""
PAD_MATTERS = (
    "roberta",
    "xlm",
    "camembert",
    "mpnet",
    "esm",
    "longformer",
    "data2vec",
    "fsmt",
    "luke",
    "marian",
    "bart",
    "pegasus",
    "t5",
    "ibert",
    "bigbird",
)
"""Parts of the names of kinds of models that count positions from the padding's number, or begin to decode with it."""


def meaning(field: str, kind: str) -> Meaning:
    """Returns what it means that a field differs: `function` for all that is not known to be harmless.

    Args:
      field: its name, with dots for what is nested.
      kind: `model_type` of the configuration; whether the padding token counts depends on it.
    """
    last = field.rsplit(".", 1)[-1]
    if last == "pad_token_id" and any(part in kind for part in PAD_MATTERS):
        return "function"
    for part in (field, last):
        if ORIGIN.match(part):
            return "origin"
        if TRAINING.match(part):
            return "training"
    return "function"


def missing_meaning(field: str, value: Any) -> Meaning:
    """Returns what it means that one configuration does not write a field: each version of transformers writes others."""
    last = field.rsplit(".", 1)[-1]
    if value is None or (last in KNOWN_DEFAULTS and KNOWN_DEFAULTS[last] == value):
        return "origin"
    if last in KNOWN_DEFAULTS or DECIDES.search(last):
        return "function"
    return "training"


DECIDES = re.compile(
    r"(hidden_act|activation|_act$|eps|epsilon|num_.*heads|num_.*layers|hidden_size|intermediate|vocab_size|rope|rotary|"
    r"position|model_type|id2label|label2id|sliding|softcap|scale|tie_|window|pooling|do_lower_case|head_dim)"
)
"""Parts of the names of fields that decide what a network computes, so that a default in their place is not enough."""

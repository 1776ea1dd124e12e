"""Words of the previous release for what heads output; ``TaskSpec.former`` says which task each stands for."""

RETURNS = {  # what a head outputs -> its shape
    "logits": "(B, classes)",
    "token-logits": "(B, T, classes)",
    "next-token-logits": "(B, T, vocabulary)",
    "values": "(B, outputs)",
    "q-values": "(B, actions)",
    "embedding": "(B, channels)",
    "first-token-logits": "(B, vocabulary)",
}
PER_TOKEN = frozenset({"token-logits", "next-token-logits"})
METRICS = {"logits": "accuracy", "values": "r2", "next-token-logits": "log_likelihood"}  # what fit trained -> by what

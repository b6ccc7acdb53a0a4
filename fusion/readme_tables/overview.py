"""Tables of README and of the claims, over many results."""

from fusion import summary
from fusion.readme_tables.kinds import Tables

TABLES: Tables = {
    "programs": ((), summary.programs),
    "brief": (("digits_lmc.json", "figure2.json", "figure5.json", "anchors.json"), summary.brief),
    "many": (("multi_fusion.json", "federated.json"), summary.many),
    "transformers": (("record.json", "language_model.json"), summary.transformers),
    "claims": (
        (
            "figure2.json",
            "figure4.json",
            "figure5.json",
            "anchors.json",
            "multi_fusion.json",
            "rivals.json",
            "theorem.json",
            "federated.json",
            "soup.json",
            "cold.json",
            "federated_baselines.json",
            "cold_minilm.json",
            "soup_dinov2.json",
        ),
        summary.claims,
    ),
}
"""By the name in the page: the results, and what makes the table of them."""

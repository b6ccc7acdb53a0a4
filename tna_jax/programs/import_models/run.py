"""`tna import FILE ...`: exported models as a run folder, for `tna barrier` and whatever else reads one."""

from tna_jax.programs.import_models.options import ImportOptions
from tna_jax.programs.runs import imported
from tna_jax.programs.runs.folder import Run


def run(settings: ImportOptions) -> Run:
    """Writes the run folder; everything that can be refused is refused before."""
    settings.check()
    return imported.import_files(settings.files, settings.out, settings.overwrite)

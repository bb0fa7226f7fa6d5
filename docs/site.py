"""A hook of mkdocs: the site's files are those of the checkout, under the paths that they have there."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("*.md", "docs/**/*.md", "projects/*/README.md", "benchmarks/README.md", "tvilfm_plugin/pretrained/*/README.md")
LINKED = ("docs/*.png", "docs/*.jpg", "projects/*/configs/*.yml", "examples/*.ipynb", "NOTICE")
HIDDEN = {"CODE_OF_CONDUCT.md", "SECURITY.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Takes the place of mkdocs's own look into docs/; what the theme brings stays."""
    for file in [one for one in files if one.src_dir == config.docs_dir]:
        files.remove(file)
    for path in sorted({path for pattern in (*PAGES, *LINKED) for path in ROOT.glob(pattern)}):
        name = path.relative_to(ROOT).as_posix()
        if name not in HIDDEN:
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files

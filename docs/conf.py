"""Configures Sphinx for the documentation site, which `make docs` builds."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

from models.network.devices import start_tensorflow  # noqa: E402
from models.settings import DeviceSettings  # noqa: E402

# autodoc imports TensorFlow; this call keeps its log lines out of the build.
start_tensorflow(DeviceSettings())

project = "spamscore"
author = "spamscore contributors"
html_title = "spamscore"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "reference_pages",
]
exclude_patterns = ["_build", "reference/_generated"]
templates_path: list[str] = []
# Readers copy commands from the pages, so quotation marks and dashes stay as they are written.
smartquotes = False

myst_enable_extensions = ["deflist", "attrs_inline"]
myst_heading_anchors = 3

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
toc_object_entries = False
# Signatures name types of other packages and of modules without a page. All other references must resolve.
nitpick_ignore_regex = [(r"py:.*", r".*")]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_use_index = False
html_domain_indices = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

"Reads everything from settings.ini, so that each fact about the package stands once."
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
readme = here / "README.md"

setup(
    name=cfg["lib_name"], version=cfg["version"], description=cfg["description"], url=cfg["git_url"], license="Apache-2.0",
    author=cfg["author"], keywords=cfg["keywords"], python_requires=f">={cfg['min_python']}",
    packages=["gemma_peft", "gemma_peft.notebooks"], package_dir={"gemma_peft": "gemma_peft", "gemma_peft.notebooks": "nbs"},
    package_data={"gemma_peft.notebooks": ["*.ipynb"]}, include_package_data=False,
    install_requires=cfg["requirements"].split(), extras_require={"dev": cfg["dev_requirements"].split()},
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": ["gemma_peft=gemma_peft._modidx:d"]},
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "", long_description_content_type="text/markdown",
)

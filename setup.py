"Reads everything from settings.ini, so that each fact about the package stands once."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
readme = here / "README.md"

class WithNotebooks(build_py):
    "The notebooks are the pipeline, so they travel with the package: nbs/*.ipynb becomes gemma_peft/notebooks/, without the tests' conftest.py."
    def find_package_modules(self, package, package_dir):
        return [] if package == "gemma_peft.notebooks" else super().find_package_modules(package, package_dir)

setup(
    name=cfg["lib_name"], version=cfg["version"], description=cfg["description"], url=cfg["git_url"], license="Apache-2.0",
    author=cfg["author"], keywords=cfg["keywords"], python_requires=f">={cfg['min_python']}",
    packages=[*find_packages(include=["gemma_peft", "gemma_peft.*"]), "gemma_peft.notebooks"], package_dir={"gemma_peft": "gemma_peft", "gemma_peft.notebooks": "nbs"},
    package_data={"gemma_peft.notebooks": ["*.ipynb", "ladder/*.toml"]}, include_package_data=False, cmdclass={"build_py": WithNotebooks},
    install_requires=cfg["requirements"].split(), extras_require={"dev": cfg["dev_requirements"].split(), "tensorboard": ["tensorboard>=2.20"]},
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": ["gemma_peft=gemma_peft._modidx:d"]},
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "", long_description_content_type="text/markdown",
)

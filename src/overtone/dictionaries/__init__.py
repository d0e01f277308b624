"""Dictionaries: states written as sparse combinations of atoms, made of small exchangeable parts."""

from overtone.dictionaries.autoencoder import Autoencoder as Autoencoder
from overtone.dictionaries.codes import SparseCodes as SparseCodes
from overtone.dictionaries.dictionary import Capabilities as Capabilities
from overtone.dictionaries.dictionary import Dictionary as Dictionary
from overtone.dictionaries.preset import Preset as Preset
from overtone.dictionaries.preset import preset as preset
from overtone.dictionaries.storage import load_dictionary as load_dictionary
from overtone.dictionaries.storage import save_dictionary as save_dictionary

"""Training: one loop for all dictionaries, exact sparse gradients, checkpoints that resume bit for bit."""

from overtone.training.fit import Fitted as Fitted
from overtone.training.fit import Job as Job
from overtone.training.fit import fit as fit
from overtone.training.fit import fit_many as fit_many

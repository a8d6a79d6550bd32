"""The whole on one machine: storage emulator, local host, a study sent as a scanner would."""

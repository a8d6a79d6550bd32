"""Queue and blob functions."""

import azure.functions as func

storage_functions = func.Blueprint()

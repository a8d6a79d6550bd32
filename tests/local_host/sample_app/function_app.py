"""A Functions app with one function for each thing that the local host's tests ask of it."""

import azure.durable_functions as df
import azure.functions as func
from doors import doors
from orchestrations import orchestrations
from storage_functions import storage_functions

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)
app.register_functions(doors)
app.register_functions(orchestrations)
app.register_functions(storage_functions)

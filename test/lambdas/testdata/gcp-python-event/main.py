import functions_framework
from cloudevents.http import CloudEvent


@functions_framework.cloud_event
def hello_cloud_event(cloud_event: CloudEvent) -> None:
    """As in the README of functions-framework-python."""
    print(f"Received event with ID: {cloud_event['id']} and data {cloud_event.data}")

"""In which order: each flow reads as the list of its steps. Imported as `chipmill.flows`."""

from chipmill.orchestration.secrecy import keep_secrets

keep_secrets()

# Copy to envs/ENVIRONMENT.tfvars and fill in. Further regions: envs/ENVIRONMENT@SITE.tfvars,
# with a region of their own and the same domains.
node_version = "0.1.0"
domain       = "api.pulse.example.com"
web_domain   = "pulse.example.com"
zone_id      = "Z0123456789"
alarm_emails = ["ops@example.com"]

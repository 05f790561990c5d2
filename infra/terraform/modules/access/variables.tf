variable "name" {
  description = "Prefix of the names, for example pulse-production."
  type        = string
}

variable "vpc_id" {
  type = string
}

variable "vpc_cidr" {
  description = "Addresses that may read the metrics."
  type        = string
}

variable "ports" {
  description = "Ports of the node, as in environments.json."
  type = object({
    http         = number
    ops          = number
    electrum_tls = number
    p2p          = number
    fleet        = number
  })
}

variable "ssh_from" {
  description = "Single addresses (/32) that may use SSH; none by default, since SSM does without."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.ssh_from : endswith(cidr, "/32")])
    error_message = "ssh_from takes single addresses, as A.B.C.D/32."
  }
}

variable "artifacts_bucket_arn" {
  type = string
}

variable "snapshots_bucket_arn" {
  type = string
}

variable "archive_bucket_arn" {
  type = string
}

variable "secrets_path" {
  description = "Path of the SSM parameters whose values become files in /etc/pulse-node/secrets."
  type        = string
}

variable "kms_key_arn" {
  type = string
}

variable "log_group_arn" {
  type = string
}

variable "alarm_topic_arn" {
  type = string
}

variable "behind_cdn" {
  description = "Whether HTTPS comes through CloudFront alone."
  type        = bool
  default     = false
}

variable "http_from" {
  description = "Networks that may use the node's HTTP port without a balancer; none by default."
  type        = list(string)
  default     = []
}

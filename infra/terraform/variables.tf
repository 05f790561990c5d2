variable "environment" {
  description = "Which of environments.json."
  type        = string

  validation {
    condition     = contains(keys(jsondecode(file("${path.module}/../environments.json")).environments), var.environment)
    error_message = "environment must be one of infra/environments.json."
  }
}

variable "site" {
  description = "Name of a further region of the same environment; empty for the main one."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[a-z0-9]{0,4}$", var.site))
    error_message = "site has up to four small letters and digits: names of balancers are short."
  }
}

variable "region" {
  type    = string
  default = "us-east-2"
}

variable "away_region" {
  description = "Where copies lie."
  type        = string
  default     = "us-west-2"
}

variable "node_version" {
  description = "Version of pulse-node to run; its artifact lies in the artifacts bucket."
  type        = string

  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+(-[0-9A-Za-z.-]+)?$", var.node_version))
    error_message = "node_version is MAJOR.MINOR.PATCH, with or without a pre-release."
  }
}

variable "domain" {
  description = "Name of the API; needed where there is a balancer or a tunnel."
  type        = string
  default     = null

  validation {
    condition     = var.domain != null || !anytrue([for feature in ["balancer", "tunnel"] : try(jsondecode(file("${path.module}/../environments.json")).environments[var.environment][feature], false)])
    error_message = "This environment has a balancer or a tunnel, and needs domain."
  }
}

variable "web_domain" {
  description = "Name of the web app, where there is one."
  type        = string
  default     = null

  validation {
    condition     = var.web_domain != null || !try(jsondecode(file("${path.module}/../environments.json")).environments[var.environment].web_app, false)
    error_message = "This environment has a web app, and needs web_domain."
  }
}

variable "zone_id" {
  description = "Route 53 zone of the domains; needed where there is a balancer."
  type        = string
  default     = null
}

variable "geolocation" {
  description = "Whom this region answers, by continent (EU) or country (DE, or * for everybody else); null: those near it. The same kind in all regions."
  type = object({
    continent = optional(string)
    country   = optional(string)
  })
  default = null
}

variable "alarm_emails" {
  description = "Who is told of alarms and of costs."
  type        = list(string)
  default     = []
}

variable "ssh_from" {
  description = "Single addresses (/32) that may use SSH; none by default."
  type        = list(string)
  default     = []
}

variable "http_from" {
  description = "Networks that may use the API of a single node without HTTPS; none by default."
  type        = list(string)
  default     = []
}

variable "cloudflared_version" {
  description = "Version of cloudflared in the artifacts bucket, where there is a tunnel."
  type        = string
  default     = "2025.11.1"
}

variable "kubernetes_api_from" {
  description = "Networks that may use the cluster's API from the Internet; none by default."
  type        = list(string)
  default     = []
}

variable "admin_roles" {
  description = "IAM roles that may do everything in the cluster."
  type        = set(string)
  default     = []
}

variable "viewer_roles" {
  description = "IAM roles that may look at the cluster."
  type        = set(string)
  default     = []
}

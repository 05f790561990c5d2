output "url" {
  description = "Where clients find the API."
  value       = local.env.balancer ? module.alb_dns[0].url : "http://${module.single[0].address}:${local.ports.http}"
}

output "electrum" {
  description = "Name of the network balancer, for Electrum over TLS and P2P."
  value       = one(module.nlb[*].dns_name)
}

output "buckets" {
  value = module.storage.buckets
}

